"""Requeues or dismisses dead letters with an audit line: each once, even if the command is repeated.

An event goes to the first tier of the retry topic, in one transaction with the mark of its dead letter and the receipt.
A refused call goes to the raw topic, which is never written in transactions. So the call is durable there before its
dead letter is marked, and a call that is sent twice is counted once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from connectors.config.deployment import Deployment
from connectors.kafka.client_config import aiokafka_config
from connectors.operations.audit_record import audited
from connectors.operations.dead_letters import (
    EVENTS,
    DeadLetter,
    DeadLetterMark,
    Filters,
    may_be_in_lago,
    topic_of,
)
from connectors.operations.pricing import as_counted
from connectors.operations.requeue_judge import RequeueJudge, RequeueResult, batches
from connectors.operations.sender import CommandProducer, Outgoing
from connectors.operations.usage_log import LogJudgement
from connectors.postgres.pool import Database
from schemas.errors import Unavailable
from schemas.money import ZERO, add, total
from schemas.records import Receipt
from schemas.rounding import quantum
from streams.core.delivery.dead_letter_headers import ATTEMPT, ATTEMPTS, CONNECT, NOT_BEFORE, REQUEUED
from streams.runtime import clock
from streams.runtime.transactions import TransactionalWriter, Write
from streams.state.step_writes import receipt_write

#: Values of marks: requeued, dismissed, or counted already and therefore not requeued.
REQUEUED_MARK, DISMISSED, KNOWN = "requeued", "purged", "known"

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Requeuer:
    """Requeues and dismisses dead letters. A second requeuer with the same name fences the first."""

    def __init__(
        self,
        deployment: Deployment,
        writer: TransactionalWriter,
        sender: CommandProducer,
        database: Database | None,
        trusted_us: int | None = None,
    ) -> None:
        self._deployment = deployment
        self._topics = deployment.topics
        self._writer = writer
        self._sender = sender
        self._unit = quantum(deployment.policy.cost_decimals)
        self._judge = RequeueJudge(deployment, database, trusted_us)

    async def audit(
        self,
        action: str,
        dead_letters: Sequence[DeadLetter],
        kind: str,
        filters: Filters,
        why: str,
        actor: str = "",
        **more: str,
    ) -> str:
        """Write the audit line of an action on `dead_letters`; return its id.

        Args:
            more: further members of the line's target.

        Raises:
            Unavailable: the line could not be written, so the action must not happen.
        """
        target = {"kind": kind, "reason": filters.reason, "customer": filters.customer, "letter": filters.dead_letter}
        if filters.may_be_in_lago is not None:
            target["may_be_in_lago"] = "true" if filters.may_be_in_lago else "false"
        return await asyncio.to_thread(
            audited,
            self._deployment,
            self._sender,
            f"dlq.{action}",
            target | {name: value for name, value in more.items() if value},
            actor=actor,
            reason=why,
            count=len(dead_letters),
            cost_usd=total(dead_letter.usd or ZERO for dead_letter in dead_letters),
        )

    async def requeue(
        self,
        dead_letters: Iterable[DeadLetter],
        audit_id: str,
        on_progress: Callable[[int], None],
        accepted: tuple[str, ...] = (),
    ) -> RequeueResult:
        """Requeue dead letters in batches. A finished batch stays finished if a later one fails.

        Args:
            accepted: reasons that the operator overrules, a subset of
                `connectors.operations.accepted_refusals.ACCEPTABLE`.

        Raises:
            ConfigurationError: without Postgres there is no usage log, which a call beyond the dedupe retention needs.
            Unavailable: `projection_behind`, `requeue_in_progress`, or Kafka or Postgres stopped answering.
        """
        done = RequeueResult()
        for batch in batches(dead_letters):
            if batch[0].kind == EVENTS:
                await self._events_back(batch, audit_id, done)
            else:
                await self._calls_back(batch, audit_id, done, accepted)
            on_progress(len(batch))
        return done

    async def dismiss(
        self, dead_letters: Iterable[DeadLetter], audit_id: str, on_progress: Callable[[int], None]
    ) -> RequeueResult:
        """Dismiss dead letters permanently. Their records stay in the topic until they expire."""
        done = RequeueResult()
        for batch in batches(dead_letters):
            await self._mark([DeadLetterMark(dead_letter, DISMISSED, audit_id) for dead_letter in batch])
            done.dismissed += len(batch)
            done.dismissed_maybe_at_lago += sum(map(may_be_in_lago, batch))
            on_progress(len(batch))
        return done

    async def _events_back(self, batch: Sequence[DeadLetter], audit_id: str, done: RequeueResult) -> None:
        back = self._judge.events(batch, done)
        now_us = clock.now_us()
        writes = [write for dead_letter in back for write in self._event_back(dead_letter, now_us)]
        await self._mark([DeadLetterMark(dead_letter, REQUEUED_MARK, audit_id) for dead_letter in back], writes)
        done.requeued += len(back)

    def _event_back(self, dead_letter: DeadLetter, now_us: int) -> list[Write]:
        gone = (ATTEMPT, ATTEMPTS, NOT_BEFORE, REQUEUED)
        headers = [
            header for header in dead_letter.headers if header[0] not in gone and not header[0].startswith(CONNECT)
        ]
        own = {ATTEMPT: 0, NOT_BEFORE: now_us // 1000, REQUEUED: dead_letter.requeued + 1}
        headers += [(name, b"%d" % number) for name, number in own.items()]
        receipt = Receipt(
            dead_letter.transaction_id, "processing", now_us, dead_letter.subscription, reason=REQUEUED_MARK
        )
        return [
            Write(self._topics.retry, 0, dead_letter.key, dead_letter.value, headers),
            receipt_write(self._topics, receipt),
        ]

    async def _calls_back(
        self, batch: Sequence[DeadLetter], audit_id: str, done: RequeueResult, accepted: tuple[str, ...]
    ) -> None:
        records, marks = [], []
        for dead_letter, usage, judgement in await self._judge.calls(batch, accepted, done):
            if judgement.sendable:
                records.append(self._call_back(dead_letter, judgement, self._judge.checked_us, accepted))
                marks.append(DeadLetterMark(dead_letter, REQUEUED_MARK, audit_id))
                done.usd = add(done.usd, usage.cost)
            else:
                marks.append(DeadLetterMark(dead_letter, KNOWN, audit_id))
                done.known += 1
        await asyncio.to_thread(self._sender.send, records)
        await self._mark(marks)
        done.requeued += len(records)

    def _call_back(
        self, dead_letter: DeadLetter, judgement: LogJudgement, at_us: int, accepted: tuple[str, ...]
    ) -> Outgoing:
        key, value, row = dead_letter.customer.encode(), dead_letter.stored, judgement.verdict.row
        if row is not None:
            key, value = as_counted(value, row, self._unit)
        return Outgoing(self._topics.raw, key, checked(value, at_us, accepted))

    async def _mark(self, marks: Sequence[DeadLetterMark], writes: Sequence[Write] = ()) -> None:
        topics = self._topics
        marked = [mark.write(topic_of(mark.dead_letter.kind, topics)) for mark in marks]
        if not marked:
            return
        try:
            await self._writer.commit([*writes, *marked], TopicPartition(topics.dlq, 0), None, "")
        except ProducerFenced as error:
            raise Unavailable(
                "requeue_in_progress",
                "another process has begun to requeue or dismiss; what is done stays done. See `meterbridge dlq list`, then repeat",
            ) from error
        except KafkaError as error:
            raise Unavailable("kafka_unavailable", type(error).__name__) from error


@asynccontextmanager
async def requeuer(
    deployment: Deployment,
    sender: CommandProducer,
    database: Database | None,
    trusted_us: int | None = None,
    name: str = "desk",
) -> AsyncIterator[Requeuer]:
    """Open a `Requeuer`. An earlier one with the same `name` is fenced and cannot write any more. Read the dead letters
    only inside the context.

    Args:
        trusted_us: see `caught_up`.

    Raises:
        Unavailable: the broker does not answer.
    """
    writer = TransactionalWriter(aiokafka_config(deployment.kafka), deployment.kafka_id(name))
    try:
        try:
            await writer.start()
        except KafkaError as error:
            raise Unavailable("kafka_unavailable", type(error).__name__) from error
        yield Requeuer(deployment, writer, sender, database, trusted_us)
    finally:
        await writer.stop()


def checked(stored: bytes, checked_at: int, accepted: tuple[str, ...] = ()) -> bytes:
    """Return a value of the raw topic with the time of its check, and with the reasons that an operator has overruled.

    Args:
        checked_at: microseconds since 1970 UTC.
    """
    overruled = {"accepted": accepted} if accepted else {}
    return _encode({**_members(stored), "checked_at": checked_at, **overruled})
