"""The spool for an event loop. Writes that wait at the same time share one fsync, and only one thread uses the file."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from connectors.ingest.spool_file import SpoolBatch, SpoolFile
from connectors.kafka.producer import Record
from schemas.errors import ConfigurationError, Unavailable
from schemas.plurals import numbered

#: The maximum bytes of one commit. This limits SQLite's log, and how long the first of many writes waits for the last.
_GROUP_BYTES = 4 << 20

_T = TypeVar("_T")
_Put = tuple[Sequence[Record], "asyncio.Future[None]"]


class Spool:
    """Records on disk until they are in Kafka. Create it with `await Spool.at(...)`, and `close()` it in the same loop.

    Attributes:
        records, bytes: in the file, and in writes that are not finished.
        oldest_ms: record time of the oldest record, milliseconds since 1970 UTC; None if there is none.
        refusing: the reason why the last write failed; `""` if it succeeded, or the spool was empty since then.
    """

    def __init__(self, file: SpoolFile) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, "spool")
        self._puts: list[_Put] = []
        self._writing: asyncio.Task[None] | None = None
        self._filled = asyncio.Event()
        self._unsettled: list[Sequence[Record]] = []  # writes that are not finished
        self.records = self.bytes = 0
        self.oldest_ms: int | None = None
        self.refusing = ""

    @classmethod
    async def at(cls, path: Path, max_bytes: int, topics: Collection[str] | None = None) -> "Spool":
        """Open the spool in the file at `path`, with the records that an earlier process left in it.

        Args:
            topics: the topics that this process writes, with their prefix; None = any.

        Raises:
            ConfigurationError: see `SpoolFile`; or it has records for other topics, which no meter of this `TOPIC_PREFIX` would
                count.
            Unavailable: the disk cannot be read.
        """
        spool = cls(await asyncio.to_thread(SpoolFile, path, max_bytes))
        try:
            left = await spool._run(spool._file.totals)
            held = {} if topics is None else await spool._run(spool._file.topics)
        except BaseException:
            await spool.close()
            raise
        if others := {topic: count for topic, count in held.items() if topic not in (topics or ())}:
            await spool.close()
            counts = ", ".join(f"{numbered(count, 'record')} for the topic {topic}" for topic, count in others.items())
            raise ConfigurationError(
                "TOPIC_PREFIX",
                f"SPOOL_PATH {path} holds {counts}, which TOPIC_PREFIX does not name: start the ingress with the "
                "prefix they were taken under, and change it once meterbridge_spool_records is 0",
            )
        spool._file.salvaged = left
        spool._recount()
        return spool

    async def put(self, records: Sequence[Record]) -> None:
        """Write `records` to the disk, in their order and behind all earlier ones; they are durable on return.

        Raises:
            Unavailable: `spool_full` or `spool_failed`; none of them is stored.
        """
        future = asyncio.get_running_loop().create_future()
        self._count(len(records), _size_of(records), records[0][3])
        self._puts.append((records, future))
        self._unsettled.append(records)
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write())
        await future

    async def filled(self) -> None:
        """Wait until there is a record, or one is being written."""
        await self._filled.wait()

    async def oldest(self, max_records: int, max_bytes: int) -> SpoolBatch:
        """Return the oldest records on disk; at least one if there is any.

        Raises:
            Unavailable: the disk cannot be read.
        """
        batch = await self._run(self._file.oldest, max_records, max_bytes)
        if batch.records:
            self.oldest_ms = batch.records[0][3]
        return batch

    async def delete(self, batch: SpoolBatch) -> None:
        """Delete a batch of `oldest` that is in Kafka.

        Raises:
            Unavailable: the disk fails. This process does not return the batch again.
        """
        try:
            await self._run(self._file.delete, batch.last)
        finally:
            self._count(-len(batch.records), -batch.bytes)

    async def close(self) -> None:
        """Close the file when all writes are finished."""
        if self._writing is not None:
            await self._writing
        await self._run(self._file.close)
        self._thread.shutdown(wait=False)

    async def _write(self) -> None:
        while self._puts:
            group = self._next_group()
            outcomes: Sequence[Exception | None]
            try:
                outcomes = await self._run(self._file.append, [records for records, _ in group])
            except Exception as bug:  # noqa: BLE001  # the callers of `put` get the error
                outcomes = [bug] * len(group)
            for (records, future), failed in zip(group, outcomes, strict=True):
                self._settle(records, future, failed)
        self._writing = None

    def _next_group(self) -> list[_Put]:
        size = count = 0
        for records, _ in self._puts:
            size += _size_of(records)
            if count and size > _GROUP_BYTES:
                break
            count += 1
        group, self._puts = self._puts[:count], self._puts[count:]
        return group

    def _settle(self, records: Sequence[Record], future: "asyncio.Future[None]", failed: Exception | None) -> None:
        """Finish one write. The write also counts if its caller no longer waits."""
        self.refusing = failed.reason if isinstance(failed, Unavailable) else ""
        self._unsettled.remove(records)
        if failed is not None:
            self._count(-len(records), -_size_of(records))
        if future.done():
            return
        if failed is None:
            future.set_result(None)
        else:
            future.set_exception(failed)

    def _count(self, records: int, size: int, oldest_ms: int | None = None) -> None:
        if not self.records:
            self.oldest_ms = oldest_ms
        self.records += records
        self.bytes += size
        if self.records:
            self._filled.set()
        else:
            self._filled.clear()
            self.bytes = 0
            self.oldest_ms = None
            self.refusing = ""

    async def _run(self, what: Callable[..., _T], *arguments: object) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, what, *arguments)
        finally:
            self._recount()

    def _recount(self) -> None:
        """Count again what is in the file after a part of it could not be read."""
        if (left := self._file.salvaged) is None:
            return
        self._file.salvaged = None
        self.records = self.bytes = 0
        self._count(left.records, left.bytes, left.oldest_ms)
        for records in self._unsettled:
            self._count(len(records), _size_of(records), records[0][3])


def _size_of(records: Sequence[Record]) -> int:
    return sum(len(value) for _, _, value, _ in records)
