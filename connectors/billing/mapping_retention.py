"""Forgets customers whose mapping was deleted long ago: their ids may be personal data.

Where Lago has a customer of the very id the record stays. Mapping by identity maps whatever id nothing is known of, so
without the record it would undo what a person decided (docs/adr/0014, 0026). The id is in Lago anyway.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from connectors.billing.subscription_discovery import beginning_after
from connectors.kafka.compacted_writer import CompactedTopicWriter
from connectors.lago.errors import LagoRejected
from connectors.lago.response_types import Customer
from schemas.customers import CustomerRecord
from schemas.errors import MeterbridgeError
from schemas.moments import HOUR_US
from streams.core.mapping.set_mapping import forgettable

#: A deleted customer's record is kept as long as usage can still come from a topic, 30 days (schemas/topics.py).
FORGET_US: Final = 31 * 24 * HOUR_US
#: Names that Lago is asked about at one look, and the pause after each, seconds.
ASKED, _PAUSE_S = 1000, 0.1

_log = structlog.get_logger(__name__)


class MappingRetention:
    """Of the customers' topic.

    Args:
        customers: the view of it.
        customer: Lago's customer of this very id; None where there is none. Raises: LagoIntegrationError.
        now_us: microseconds since 1970 UTC.
    """

    def __init__(
        self,
        customers: Mapping[str, CustomerRecord],
        records: CompactedTopicWriter[CustomerRecord],
        customer: Callable[[str], Awaitable[Customer | None]],
        now_us: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._customers = customers
        self._records = records
        self._customer = customer
        self._now_us = now_us
        self._sleep = sleep
        self._last = ""

    async def work(self, every_s: float) -> None:
        """Look for records to forget, wait, and repeat. It never returns."""
        while True:
            try:
                await self.look()
            except MeterbridgeError as error:
                _log.warning("customers_not_forgotten", reason=error.reason, detail=error.detail)
            await self._sleep(every_s)

    async def look(self) -> None:
        """Take out of the topic whose mapping was deleted before all usage that a topic still holds, at most `ASKED`.

        The next look goes on after the last name.

        Raises:
            MeterbridgeError: Lago or Kafka is away: what is left is looked at next time.
        """
        until_us = self._now_us() - FORGET_US
        due = [name for name, record in self._customers.items() if forgettable(record, until_us)]

        def without(known: CustomerRecord | None) -> CustomerRecord | None:
            return None if known is None or forgettable(known, until_us) else known

        for name in beginning_after(self._last, due)[:ASKED]:
            self._last = name  # one that Lago has no answer for does not hold up those after it
            if not await self._is_lagos(name):
                await self._records.change(name, without)
            await self._sleep(_PAUSE_S)

    async def _is_lagos(self, name: str) -> bool:
        try:
            return await self._customer(name) is not None
        except LagoRejected as error:
            if error.reason != "unsafe_id":
                raise
            return False  # no id that Lago could have
