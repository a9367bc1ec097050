"""Errors of aiokafka (0.14.0) that would end a process or stop it without a message, mended in its classes.

A write to a connection that was just reset raises OSError in asyncio's own loops, and RuntimeError in uvloop (0.23,
`UVHandle._ensure_alive`). `AIOKafkaConnection.send` handles OSError only. A RuntimeError ends the task that meets it. If that
task refreshes a client's metadata, the client then never returns from a commit or a fetch, without a message.

A broker whose registration has expired names no broker until the controller has registered it again. A client that starts in
that time fails in `AIOKafkaClient.coordinator_lookup` with an AssertionError, which its callers take for an error in our code.
Until a broker is named, a client has only its first connection. When this connection closes, the client never connects again.

A header whose name is not UTF-8 raises UnicodeDecodeError at its record, and again at every further attempt: the partition, and
with it the process, would never get past this record. Kafka's broker accepts such names.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import wraps
from struct import Struct
from typing import Any

from aiokafka import ConsumerRecord
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer import fetcher
from aiokafka.errors import CoordinatorNotAvailableError, KafkaConnectionError, KafkaError
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

#: How a batch of records begins: its first offset, and the bytes that follow.
_OVERHEAD = Struct(">qi")


def repair_aiokafka() -> None:
    """Replace the methods, once a process: for clients that exist already, too."""
    _wrap(AIOKafkaConnection, "send", _surviving)
    _wrap(AIOKafkaConnection, "_send_sasl_token", _surviving)
    _wrap(AIOKafkaClient, "coordinator_lookup", _knowing_a_broker)
    _wrap(AIOKafkaClient, "_metadata_update", _connected)
    _wrap(fetcher.PartitionRecords, "_unpack_records", _reading_any_name)
    fetcher.MemoryRecords = _KeptRecords


def _wrap(owner: type, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    method = getattr(owner, name)
    if not hasattr(method, "__wrapped__"):
        setattr(owner, name, wrapper(method))


def _surviving(send: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `send`: uvloop's error becomes aiokafka's own error for a broken connection."""

    @wraps(send)
    def survive(connection: AIOKafkaConnection, *args: Any, **options: Any) -> Any:
        try:
            return send(connection, *args, **options)
        except KafkaError:  # KafkaError is a RuntimeError
            raise
        except RuntimeError as error:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"{connection!r} was closed under a request") from error

    return survive


def _knowing_a_broker(lookup: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `lookup`: without a known broker it raises the error after which its callers ask for brokers and try again."""

    @wraps(lookup)
    async def look_up(client: AIOKafkaClient, *args: Any) -> Any:
        if client.get_random_node() is None:
            raise CoordinatorNotAvailableError("Kafka has named no broker yet")
        return await lookup(client, *args)

    return look_up


def _connected(update: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `_metadata_update`: a client that knows no broker and has lost its first connection begins anew."""

    @wraps(update)
    async def update_metadata(client: AIOKafkaClient, *args: Any) -> Any:
        first = client._conns.get(("bootstrap", ConnectionGroup.DEFAULT))  # noqa: SLF001
        if client.get_random_node() is None and (first is None or not first.connected()):
            try:
                await client.bootstrap()
            except KafkaError:  # aiokafka has logged it, and its callers ask again
                return False
        return await update(client, *args)

    return update_metadata


class _KeptRecords(MemoryRecords):  # type: ignore[misc]
    """Fetched records that keep their bytes."""

    def __init__(self, fetched: bytes) -> None:
        super().__init__(fetched)
        self.fetched = fetched


class _Name(bytes):
    """A part of a batch that is readable as text, whatever it is."""

    def decode(self, encoding: str = "utf-8", _errors: str = "") -> str:
        return super().decode(encoding, "replace")


class _Packed(bytearray):
    """A batch whose headers may have any name: aiokafka decodes each name from a slice of the batch."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Name(part) if isinstance(at, slice) else part


class _AnyNames(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A batch of records, read by aiokafka's slower code in Python: a name that is not UTF-8 is read with U+FFFD."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Packed(self._buffer)


class _TolerantRecords:
    """The batches of fetched records that have `offset` or a later one."""

    def __init__(self, fetched: bytes, offset: int) -> None:
        self._batches: deque[_AnyNames] = deque()
        start = 0
        while (begins := start + _OVERHEAD.size) <= len(fetched):
            _base, size = _OVERHEAD.unpack_from(fetched, start)
            if begins + size > len(fetched):  # Kafka may cut the last batch
                break
            batch = _AnyNames(fetched[start : begins + size])
            if batch.next_offset > offset:
                self._batches.append(batch)
            start = begins + size

    def has_next(self) -> bool:
        return bool(self._batches)

    def next_batch(self) -> _AnyNames:
        return self._batches.popleft()


def _reading_any_name(unpack: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `_unpack_records`: at a name that is not UTF-8 it goes on from the same record with tolerant batches."""

    @wraps(unpack)
    def unpack_records(records: fetcher.PartitionRecords) -> Iterator[ConsumerRecord]:
        try:
            yield from unpack(records)
        except UnicodeDecodeError:
            records._records = _TolerantRecords(records._records.fetched, records.next_fetch_offset)  # noqa: SLF001
            yield from unpack(records)

    return unpack_records
