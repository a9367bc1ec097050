"""A process that changes an org's record, for tests of what several processes do to one:

`python -m tests.support.org_changer <bootstrap> <prefix> <org> <name> <times> [freeze]` adds 1 to the limit `name`
that many times, then ends; with `freeze` it stops itself (SIGSTOP) between reading the record and writing it, once.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec
from aiokafka import AIOKafkaConsumer

from connectors.billing.org_records import OrgRecords
from schemas.customers import OrgRecord
from schemas.topics import TopicNames
from streams.runtime.compacted_table import CompactedTable


class Behind(CompactedTable[OrgRecord]):
    """A table that stops updating when told to, as on a machine that is too busy."""

    def __init__(self, kafka: Mapping[str, str], topic: str) -> None:
        super().__init__(kafka, topic, OrgRecord, time.monotonic, "orgs")
        self._may, self._stands = asyncio.Event(), asyncio.Event()
        self._may.set()

    async def stand_still(self) -> None:
        """Stop updating; return when no more records are read."""
        self._may.clear()
        await self._stands.wait()

    def go_on(self) -> None:
        """Continue updating, with the records that arrived in between."""
        self._stands.clear()
        self._may.set()

    async def _read(self, consumer: AIOKafkaConsumer, wait_ms: int) -> None:
        if not self._may.is_set():
            self._stands.set()
        await self._may.wait()
        await super()._read(consumer, wait_ms)


@asynccontextmanager
async def org_records(bootstrap: str, prefix: str) -> AsyncIterator[OrgRecords]:
    """Records with a view, a writer and connections of their own, as a process has them."""
    async with viewed_records(bootstrap, prefix) as (records, _):
        yield records


@asynccontextmanager
async def viewed_records(bootstrap: str, prefix: str) -> AsyncIterator[tuple[OrgRecords, Behind]]:
    """Yield the same, with the view at hand."""
    kafka, topic = {"bootstrap_servers": bootstrap}, TopicNames.with_prefix(prefix).orgs
    orgs = Behind(kafka, topic)
    records = OrgRecords(orgs, kafka, topic, now_us=lambda: time.time_ns() // 1000)
    await orgs.start()
    try:
        yield records, orgs
    finally:
        await records.close()
        await orgs.stop()


def with_one_more(org: OrgRecord, name: str) -> OrgRecord:
    """Return the org with 1 more in the limit `name`."""
    return msgspec.structs.replace(org, limits={**org.limits, name: org.limits.get(name, 0) + 1})


async def _run(bootstrap: str, prefix: str, org_id: str, name: str, times: int, *, freeze: bool) -> None:
    frozen = not freeze

    def make(org: OrgRecord) -> OrgRecord:
        nonlocal frozen
        if not frozen:
            frozen = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return with_one_more(org, name)

    async with org_records(bootstrap, prefix) as records:
        for _ in range(times):
            await records.change(org_id, make)


if __name__ == "__main__":
    at, under, org, limit, often = sys.argv[1:6]
    asyncio.run(_run(at, under, org, limit, int(often), freeze="freeze" in sys.argv[6:]))
