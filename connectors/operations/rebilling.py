"""Bills usage again that was posted after the end of its subscription: exactly once, even if two processes do it at the
same time.

One transaction holds the new event, its receipt, and the failed receipt of the old event. All processes share one
transactional id. A process that starts its producer fences the previous process, and only then reads the events that
are left. So it sees the finished work of the other process, and Kafka refuses all later writes of that process
(docs/adr/0027).
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Self

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from connectors.config.deployment import Deployment
from connectors.kafka.client_config import aiokafka_config
from connectors.kafka.topic_scan import offset_range_of
from connectors.operations.after_end import UninvoicedEvent
from connectors.operations.usage_log import placed, records_in, unprojected
from connectors.postgres.pool import Database
from schemas.errors import Unavailable
from schemas.records import LagoEvent, Receipt
from streams.core.delivery.after_end import UNBILLABLE_ENDED
from streams.core.delivery.receipt_states import FAILED, PENDING
from streams.runtime import clock
from streams.runtime.transactions import TransactionalWriter, Write
from streams.state.step_writes import MANIFEST, receipt_write

_ASK_AGAIN_S: Final = 0.25


class Rebilling:
    """The exclusive right to bill again, as a context manager.

    Args:
        limit_s: how long the projector may take to reach the end of the receipts, seconds.

    Raises:
        Unavailable: the broker does not answer, or the projector does not reach the end of the receipts in time.
    """

    def __init__(self, deployment: Deployment, database: Database, limit_s: float = 30.0) -> None:
        self._deployment = deployment
        self._database = database
        self._limit_s = limit_s
        self._topics = deployment.topics
        self._writer = TransactionalWriter(aiokafka_config(deployment.kafka), deployment.kafka_id("rebill"))

    async def __aenter__(self) -> Self:
        try:
            await self._writer.start()
            await receipts_are_read(self._deployment, self._database, self._limit_s)
        except KafkaError as error:
            await self._writer.stop()
            raise Unavailable("kafka_unavailable", type(error).__name__) from error
        except BaseException:
            await self._writer.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._writer.stop()

    async def bill(self, lost: Sequence[UninvoicedEvent]) -> None:
        """Write the events that bill `lost` again, in one transaction.

        Args:
            lost: at most `after_end.PAGE` events, each `able`. Read them from the tables after entering the context,
                because another process may have billed them before.

        Raises:
            Unavailable: Kafka stopped answering, or `requeue_in_progress`. The transaction is then written wholly or
                not at all.
        """
        writes = [write for event in lost for write in self._writes(event)]
        if not writes:
            return
        try:
            await self._writer.commit(writes, TopicPartition(self._topics.events, 0), None, "")
        except ProducerFenced as error:
            raise Unavailable("requeue_in_progress", "another process has begun to bill again") from error
        except KafkaError as error:
            raise Unavailable("kafka_unavailable", type(error).__name__) from error

    def _writes(self, lost: UninvoicedEvent) -> list[Write]:
        now_us = clock.now_us()
        failed = Receipt(lost.event.transaction_id, FAILED, now_us, lost.subscription, reason=UNBILLABLE_ENDED)
        again = [] if lost.instead is None else self._instead(lost.instead, lost, now_us)
        return [*again, receipt_write(self._topics, failed)] if lost.able else []

    def _instead(self, event: LagoEvent, lost: UninvoicedEvent, now_us: int) -> list[Write]:
        key, headers, calls = event.external_subscription_id.encode(), [], 0
        if lost.manifest is not None:
            named = {"deployment": self._deployment.name, "organization": lost.organization}
            manifest = msgspec.structs.replace(lost.manifest, **named)
            headers, calls = [(MANIFEST, msgspec.json.encode(manifest))], manifest.count
        cents = event.precise_total_amount_cents
        begun = Receipt(event.transaction_id, PENDING, now_us, event.external_subscription_id, cents, calls)
        return [
            Write(self._topics.events, -1, key, msgspec.json.encode(event), headers),
            receipt_write(self._topics, begun),
        ]


async def receipts_are_read(deployment: Deployment, database: Database, limit_s: float = 30.0) -> None:
    """Wait until the tables hold every receipt that existed at the time of the call.

    Raises:
        Unavailable: `projection_behind`: a receipt is still missing after `limit_s` seconds.
    """
    whole = await asyncio.to_thread(offset_range_of, deployment.kafka, deployment.topics.receipts)
    deadline = time.monotonic() + limit_s
    while behind := await asyncio.to_thread(
        records_in, deployment.kafka, unprojected(whole, await placed(database, whole.topic))
    ):
        if time.monotonic() > deadline:
            raise Unavailable("projection_behind", f"the projector has {behind} receipts to go: is it running?")
        await asyncio.sleep(_ASK_AGAIN_S)
