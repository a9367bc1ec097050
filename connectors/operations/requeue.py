"""Dead letters come back, or are put away: each once, whoever tries again, and on record.

An event goes to the retry topic's first tier in the transaction that marks its letter and tells its receipt. A refused
call goes to the raw topic, which is never written in transactions: it is durable there before its letter is marked, and
a call that is sent twice is counted once.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from connectors.kafka.security import aiokafka_config
from connectors.operations.letters import EVENTS, Letter, Mark, topic_of, usage_of
from connectors.operations.overruling import needs_word, never_comes_back
from connectors.operations.sending import Outgoing, Sender
from connectors.operations.usage_log import Checked, caught_up, forgotten, known
from connectors.postgres.pool import Database
from connectors.settings import Settings
from schemas.errors import ConfigurationError, Unavailable
from schemas.money import quantum
from schemas.records import Receipt
from schemas.topics import TopicNames
from schemas.usage import Usage
from streams.core.letters import ATTEMPT, ATTEMPTS, CONNECT, NOT_BEFORE, REQUEUED
from streams.transactions import TransactionalWriter, Write
from streams.writes import receipt_write

BATCH = 500
#: Marks: put back, put away, or counted already and therefore not put back.
REQUEUED_MARK, PURGED, KNOWN = "requeued", "purged", "known"

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(slots=True)
class Done:
    """How many letters were put back, put away, found to be counted already, or cannot come back as they are.

    Fields:
        unaccepted: come back when the operator accepts their reason by name.
    """

    requeued: int = 0
    purged: int = 0
    known: int = 0
    impossible: int = 0
    unaccepted: int = 0
    ids: list[str] = field(default_factory=list)


class Desk:
    """Acts on letters under one audit line; one desk at a time, a second one fences the first."""

    def __init__(
        self, settings: Settings, writer: TransactionalWriter, sender: Sender, database: Database | None
    ) -> None:
        self._settings = settings
        self._topics = TopicNames.with_prefix(settings.topic_prefix)
        self._writer = writer
        self._sender = sender
        self._database = database
        self._unit = quantum(settings.cost_decimals)
        self._checked: Checked | None = None

    async def requeue(
        self, letters: Iterable[Letter], audit_id: str, told: Callable[[int], None], accepted: tuple[str, ...] = ()
    ) -> Done:
        """Put letters back, in batches; what is done stays done when a later batch fails.

        Args:
            accepted: reasons that the operator overrules, of `connectors.operations.overruling.ACCEPTABLE`.

        Raises:
            ConfigurationError: a call beyond the horizon needs the usage log, and there is no Postgres.
            Unavailable: `log_behind`, or Kafka or Postgres went away; `another_desk`.
        """
        done = Done()
        for batch in _batches(letters):
            if batch[0].kind == EVENTS:
                await self._events_back(batch, audit_id, done)
            else:
                await self._calls_back(batch, audit_id, done, accepted)
            told(len(batch))
        return done

    async def purge(self, letters: Iterable[Letter], audit_id: str, told: Callable[[int], None]) -> Done:
        """Put letters away for good; the topic keeps them for as long as it keeps anything."""
        done = Done()
        for batch in _batches(letters):
            await self._mark([Mark(letter, PURGED, audit_id) for letter in batch])
            done.purged += len(batch)
            told(len(batch))
        return done

    async def _events_back(self, batch: Sequence[Letter], audit_id: str, done: Done) -> None:
        back = [letter for letter in batch if letter.transaction_id]
        now_us = time.time_ns() // 1000
        writes = [write for letter in back for write in self._event_back(letter, now_us)]
        await self._mark([Mark(letter, REQUEUED_MARK, audit_id) for letter in back], writes)
        done.requeued += len(back)
        done.impossible += len(batch) - len(back)

    def _event_back(self, letter: Letter, now_us: int) -> list[Write]:
        gone = (ATTEMPT, ATTEMPTS, NOT_BEFORE, REQUEUED)
        headers = [one for one in letter.headers if one[0] not in gone and not one[0].startswith(CONNECT)]
        own = {ATTEMPT: 0, NOT_BEFORE: now_us // 1000, REQUEUED: letter.requeued + 1}
        headers += [(name, b"%d" % number) for name, number in own.items()]
        receipt = Receipt(letter.transaction_id, "processing", now_us, letter.subscription, reason=REQUEUED_MARK)
        return [
            Write(self._topics.retry, 0, letter.key, letter.value, headers),
            receipt_write(self._topics, receipt),
        ]

    async def _calls_back(self, batch: Sequence[Letter], audit_id: str, done: Done, accepted: tuple[str, ...]) -> None:
        read: list[tuple[Letter, Usage]] = []
        for letter in batch:
            usage = usage_of(letter.stored, letter.customer, self._unit)
            if needs_word(letter.reason, accepted):
                done.unaccepted += 1
            elif usage is None or never_comes_back(letter.reason):
                done.impossible += 1
            else:
                read.append((letter, usage))
        counted, unknowable = await self._counted(read, accepted) if read else (set(), set())
        back = [one for number, one in enumerate(read) if number not in counted | unknowable]
        at_us = self._checked.at_us if self._checked is not None else 0
        records = [
            Outgoing(self._topics.raw, letter.key, checked(letter.stored, at_us, accepted)) for letter, _ in back
        ]
        await asyncio.to_thread(self._sender.send, records)
        marks = [Mark(letter, REQUEUED_MARK, audit_id) for letter, _ in back]
        marks += [Mark(read[number][0], KNOWN, audit_id) for number in sorted(counted)]
        await self._mark(marks)
        done.requeued += len(back)
        done.known += len(counted)
        done.impossible += len(unknowable)

    async def _counted(
        self, read: Sequence[tuple[Letter, Usage]], accepted: tuple[str, ...]
    ) -> tuple[set[int], set[int]]:
        """Those that are in the log, and those of which the log does not know any more whether they were.

        Without a log an accepted call goes back unchecked: the meter itself knows, or keeps it aside as too old.
        """
        if self._database is None and all(letter.reason in accepted for letter, _ in read):
            return set(), set()
        if self._database is None:
            raise ConfigurationError(
                "DATABASE_URL", "refused calls come back only after a check against the usage log, which needs Postgres"
            )
        if self._checked is None:
            self._checked = await caught_up(self._settings, self._database)
        usages = [usage for _, usage in read]
        counted = await known(self._database, usages, self._checked)
        return counted, await forgotten(self._database, usages) - counted

    async def _mark(self, marks: Sequence[Mark], writes: Sequence[Write] = ()) -> None:
        topics = self._topics
        marked = [mark.write(topic_of(mark.letter.kind, topics)) for mark in marks]
        if not marked:
            return
        try:
            await self._writer.commit([*writes, *marked], TopicPartition(topics.dlq, 0), None, "")
        except ProducerFenced as error:
            raise Unavailable("another_desk", "somebody else has begun to requeue or purge") from error
        except KafkaError as error:
            raise Unavailable("kafka_unavailable", type(error).__name__) from error


@asynccontextmanager
async def desk(settings: Settings, sender: Sender, database: Database | None) -> AsyncIterator[Desk]:
    """A `Desk`; whoever else has one can do nothing more. Read letters only after this is entered.

    Raises:
        Unavailable: the broker does not answer.
    """
    name = f"{settings.topic_prefix}{settings.deployment_name}-desk"
    writer = TransactionalWriter(aiokafka_config(settings), name)
    try:
        try:
            await writer.start()
        except KafkaError as error:
            raise Unavailable("kafka_unavailable", type(error).__name__) from error
        yield Desk(settings, writer, sender, database)
    finally:
        await writer.stop()


def checked(stored: bytes, checked_at: int, accepted: tuple[str, ...] = ()) -> bytes:
    """A value of the raw topic, verbatim but for the moment of its check, microseconds since 1970 UTC, and for the
    reasons that an operator has overruled."""
    overruled = {"accepted": accepted} if accepted else {}
    return _encode({**_members(stored), "checked_at": checked_at, **overruled})


def _batches(letters: Iterable[Letter]) -> Iterable[list[Letter]]:
    """At most `BATCH` letters of one kind each."""
    batch: list[Letter] = []
    for letter in letters:
        if batch and (len(batch) == BATCH or batch[0].kind != letter.kind):
            yield batch
            batch = []
        batch.append(letter)
    if batch:
        yield batch
