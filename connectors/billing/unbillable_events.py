"""Handles events that Lago accepted and does not bill. Lago reports them within an hour, after their receipts were
written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from connectors.billing.event_state_reader import ReceiptsFollower
from connectors.kafka.checked_producer import CheckedProducer
from connectors.kafka.producer import Record
from schemas.records import Receipt
from streams.core.delivery.receipt_states import FAILED, UNBILLABLE

#: Lago's reasons (docs/lago-webhooks.md). Any other reason is counted as `other`.
REASONS: Final = ("invalid_code", "missing_aggregation_property", "missing_group_key", "invalid_filter_values")
_BATCH: Final = 1000
_SHOWN: Final = 5

_log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class UnbillableEvents:
    """Writes failed receipts for events that Lago does not bill.

    Args:
        topic: the receipts topic.
        count: called with a reason and the number of its events.
    """

    states: ReceiptsFollower
    writer: CheckedProducer
    topic: str
    count: Callable[[str, int], None]
    now_us: Callable[[], int]

    async def unbillable(self, ids_by_reason: Mapping[str, list[str]]) -> int:
        """Write a receipt for each event of Meterbridge that has not failed already.

        Args:
            ids_by_reason: transaction ids by Lago's reason; events of other senders are ignored.

        Returns:
            The number of receipts.

        Raises:
            Unavailable: Kafka does not answer, or the receipts are not read yet; repeating is safe.
        """
        count = 0
        for reason, ids in ids_by_reason.items():
            ours = [
                transaction_id
                for transaction_id in dict.fromkeys(ids)
                if self.states.state(transaction_id) not in (None, FAILED)
            ]
            code = UNBILLABLE + (reason if reason in REASONS else "other")
            for start in range(0, len(ours), _BATCH):
                await self.writer.send_all([self._receipt(our, code) for our in ours[start : start + _BATCH]])
            if ours:
                _log.error("events_not_billed", reason=code, events=len(ours), first=ours[:_SHOWN])
                self.count(code, len(ours))
            count += len(ours)
        return count

    def _receipt(self, transaction_id: str, code: str) -> Record:
        now_us = self.now_us()
        receipt = Receipt(transaction_id, FAILED, now_us, reason=code)
        return self.topic, transaction_id, _encode(receipt), now_us // 1000
