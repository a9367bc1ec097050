"""The customers' records: changed one after the other whatever process asks, many of them in one transaction.

A change is a compare-and-set (docs/adr/0012): all processes write `billing.customers` under one transactional id.
Whoever starts it fences the others, reads what they wrote, and goes on writing until it is fenced itself; a change
that finds itself fenced is made again on what is there now. What is asked for while a transaction is under way is
the next one.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from schemas.customers import CustomerRecord
from schemas.errors import MeterbridgeError, Unavailable
from streams.followers import Follower
from streams.transactions import TransactionalWriter, Write

#: Records of one transaction at most; how long they wait for it at most.
_BATCH = 100
_LIMIT_S = 10.0
#: Before the next attempt: drawn between nothing and this, doubled each time up to the second.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0

_encode = msgspec.json.Encoder().encode

Known = CustomerRecord | None
Make = Callable[[Known], Known]
Announce = Callable[[Known, Known], Awaitable[None]]


async def _silently(_before: Known, _after: Known) -> None:
    """For whoever tells nobody."""


@dataclass(slots=True, eq=False)
class _Change:
    """What somebody waits for; `tried`: what was written without our learning whether it is durable.

    Records name the microsecond they were made in: what is there and looks like `tried` is what we wrote.
    """

    key: str
    make: Make
    announce: Announce
    done: asyncio.Future[Known]
    tried: tuple[Known, ...] = ()


class CustomerRecords:
    """The only way to write `billing.customers`.

    Args:
        customers: the view; followed by whoever made it.
        kafka: connection options for aiokafka.
        draw: a number in `[0, 1)`.
        limit_s: that a batch of changes takes at most.
    """

    def __init__(
        self,
        customers: Follower[CustomerRecord],
        kafka: Mapping[str, Any],
        topic: str,
        draw: Callable[[], float] = random.random,
        limit_s: float = _LIMIT_S,
    ) -> None:
        self._customers = customers
        self._kafka = kafka
        self._topic = topic
        self._draw = draw
        self._limit_s = limit_s
        self._waiting: list[_Change] = []
        self._work: asyncio.Task[None] | None = None
        self._writer: TransactionalWriter | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def change(self, customer_id: str, make: Make, announce: Announce = _silently) -> Known:
        """Make the customer's record what `make` says of it; durable, and in the view, on return.

        Args:
            make: from the record as it is, None where there is none; None deletes it, the same again writes nothing.
                It may be called several times.
            announce: is awaited with what is there and what is to be there, before that has any effect.

        Raises:
            Unavailable: `customers_contended`, `kafka_unavailable`; it may have been written, repeating is safe.
            Whatever `make` and `announce` raise: nothing is written.
        """
        change = _Change(customer_id, make, announce, asyncio.get_running_loop().create_future())
        self._waiting.append(change)
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(self._drain())
        return await change.done

    async def close(self) -> None:
        """Let go of the connections; nothing of this process is written any more."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})
        for change in self._waiting:
            change.done.cancel()
        self._abandon()
        await asyncio.gather(*self._ending)

    async def _drain(self) -> None:
        while batch := self._next_batch():
            failures: list[KafkaError] = []
            try:
                async with asyncio.timeout(self._limit_s):
                    await self._until_done(batch, failures)
            except TimeoutError:
                _fail(batch, _given_up(failures))
            except Exception as error:  # noqa: BLE001  # a bug is told to whoever asked; others are served
                _fail(batch, error)
            except asyncio.CancelledError:
                _fail(batch, Unavailable("stopping", "the process is being stopped"))
                raise

    def _next_batch(self) -> list[_Change]:
        """The oldest changes, one a customer: the next one of the same customer is made of its outcome."""
        batch: dict[str, _Change] = {}
        later = []
        for change in self._waiting:
            if change.key in batch or len(batch) == _BATCH:
                later.append(change)
            elif not change.done.done():
                batch[change.key] = change
        self._waiting = later
        return list(batch.values())

    async def _until_done(self, batch: Sequence[_Change], failures: list[KafkaError]) -> None:
        for attempt in count():
            try:
                return await self._attempt(batch)
            except KafkaError as error:
                failures.append(error)
            await asyncio.sleep(self._draw() * min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt))
        raise AssertionError

    async def _attempt(self, batch: Sequence[_Change]) -> None:
        """Raises: KafkaError: fenced, or Kafka is not there; a new attempt begins with fencing."""
        whole = self._writer is None
        if whole:
            await self._fence()
        wanted = self._made(batch, whole=whole)
        unsure = [change for change in batch if not change.done.done() and change not in wanted]
        if unsure:
            # What is to stay, or was refused, must not be what somebody else has changed since.
            await self._customers.wait_now()
            wanted |= self._made(unsure, whole=True)
        for change in await self._announced(wanted):
            del wanted[change]
        if wanted:
            await self._write(wanted)

    def _made(self, batch: Sequence[_Change], *, whole: bool) -> dict[_Change, tuple[Known, Known]]:
        """What is there and what is to be written; a change that writes nothing is done, if the view is whole."""
        wanted: dict[_Change, tuple[Known, Known]] = {}
        for change in batch:
            if change.done.done():
                continue
            before = self._customers.table.get(change.key)
            try:
                after = before if change.tried == (before,) else change.make(before)
            except Exception as error:  # noqa: BLE001  # it is whoever asked who is told
                if whole or not isinstance(error, MeterbridgeError):
                    _fail([change], error)
                continue
            if after != before:
                wanted[change] = (before, after)
            elif whole:
                change.done.set_result(before)
        return wanted

    async def _announced(self, wanted: Mapping[_Change, tuple[Known, Known]]) -> list[_Change]:
        """Tell of all changes; those that could not be told, which have failed."""
        telling = (change.announce(before, after) for change, (before, after) in wanted.items())
        told = await asyncio.gather(*telling, return_exceptions=True)
        untold = []
        for change, answer in zip(wanted, told, strict=True):
            if isinstance(answer, BaseException):
                _fail([change], answer)
                untold.append(change)
        return untold

    async def _fence(self) -> None:
        """Become the only writer, and see all that the others have written."""
        with self._or_abandoned():
            self._writer = TransactionalWriter(self._kafka, f"{self._topic}-writer")
            await self._writer.start()
            await self._customers.wait_now()

    async def _write(self, wanted: Mapping[_Change, tuple[Known, Known]]) -> None:
        """Raises: KafkaError: it is not known whether anything is written."""
        assert self._writer is not None  # noqa: S101  # `_attempt` has fenced
        writes = []
        for change, (_, after) in wanted.items():
            change.tried = (after,)
            writes.append(Write(self._topic, -1, change.key.encode(), None if after is None else _encode(after)))
        with self._or_abandoned():
            ends = await self._writer.commit(writes, TopicPartition(self._topic, 0), None, "")
            for (_, partition), end in ends.items():
                await self._customers.wait_offset(partition, end - 1)
        for change, (_, after) in wanted.items():
            if not change.done.done():
                change.done.set_result(after)

    @contextmanager
    def _or_abandoned(self) -> Iterator[None]:
        """The writer is kept only while the view is known to hold all that it and those before it wrote."""
        try:
            yield
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            ending = asyncio.ensure_future(writer.stop())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)


def _fail(batch: Sequence[_Change], error: BaseException) -> None:
    for change in batch:
        if not change.done.done():
            change.done.set_exception(error)


def _given_up(failures: Sequence[KafkaError]) -> Unavailable:
    if failures and isinstance(failures[-1], ProducerFenced):
        return Unavailable("customers_contended", "other processes change customers all the time")
    return Unavailable("kafka_unavailable", "the mapping was not stored in time")
