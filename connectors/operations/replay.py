"""Sends the records of a period again: raw calls to the raw topic, or enriched calls to another topic.

A replay bills nothing twice. The ledger recognises a call within the dedupe retention. An older call waits in the
rejected topic for `meterbridge dlq requeue`, which asks the usage log. Another topic serves a consumer that has missed
records; billing does not read it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Message

from connectors.config.deployment import Deployment
from connectors.kafka.topic_scan import OffsetRange, offset_range_of, scan
from connectors.operations.dead_letters import usage_of
from connectors.operations.sender import CommandProducer, Outgoing
from schemas.decoding import UNDECODABLE, decoder
from schemas.errors import ConfigurationError, TopicProblem
from schemas.money import ZERO, add, plain
from schemas.records import EnrichedUsage
from schemas.rounding import quantum
from streams.state.step_writes import order_in

RAW = "raw"
_BATCH = 2000

_enriched = decoder(EnrichedUsage)


@dataclass(slots=True)
class Amount:
    """A number of calls, their tokens and their dollars."""

    calls: int = 0
    tokens: int = 0
    usd: Decimal = ZERO

    def count(self, tokens: int, usd: Decimal) -> None:
        """Add one call."""
        self.calls += 1
        self.tokens += tokens
        self.usd = add(self.usd, usd)

    def as_object(self) -> dict[str, Any]:
        """Return the amount as an object for JSON."""
        return {"calls": self.calls, "tokens": self.tokens, "usd": plain(self.usd)}


def total(amounts: Mapping[str, Amount]) -> Amount:
    """Return the sum of the amounts."""
    whole = Amount()
    for amount in amounts.values():
        whole.calls += amount.calls
        whole.tokens += amount.tokens
        whole.usd = add(whole.usd, amount.usd)
    return whole


def by_customer(amounts: Mapping[str, Amount]) -> dict[str, dict[str, Any]]:
    """Return the amounts by customer id for JSON, in the order of the ids."""
    return {name: amount.as_object() for name, amount in sorted(amounts.items())}


@dataclass(slots=True)
class RangeContents:
    """The contents of a range of offsets: amounts by LiteLLM customer id, and the number of records without a call."""

    customers: dict[str, Amount] = field(default_factory=dict)
    unreadable: int = 0

    def total(self) -> Amount:
        """Return the total of all customers."""
        return total(self.customers)


class Checkpoint(msgspec.Struct):
    """The progress of a replay: its parameters, and the next offset of each partition."""

    asked: dict[str, str]
    next: dict[int, int] = {}


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay. Its range of offsets is fixed when it is planned, so the replay does not read its own records.

    Fields:
        source: full name of the topic to read.
        target_topic: full name of the topic to write.
        customer: LiteLLM customer id; `""` for all.
    """

    deployment: Deployment
    stretch: OffsetRange
    source: str
    target_topic: str
    since_ms: int
    until_ms: int
    customer: str = ""

    @classmethod
    def planned(
        cls, deployment: Deployment, since_ms: int, until_ms: int, target_topic: str = RAW, customer: str = ""
    ) -> "Replay":
        """Plan a replay of the records with times in `[since, until)`, milliseconds since 1970 UTC.

        Raises:
            ConfigurationError: `target_topic` is one of the product's own topics other than raw.
            TopicProblem: `topic_missing`.
            Unavailable: the broker does not answer.
        """
        kafka, topics = deployment.kafka, deployment.topics
        target = topics.raw if target_topic in (RAW, topics.raw) else target_topic
        if target != topics.raw and target in astuple(topics):
            raise ConfigurationError(
                "--target-topic", f"{target} is written by the product alone: name a topic of your own"
            )
        source = topics.raw if target == topics.raw else topics.enriched
        try:
            offset_range_of(kafka, target)
        except TopicProblem:
            if target == topics.raw:
                raise
            raise TopicProblem(
                "topic_missing", f"--target-topic: {target} does not exist: create this topic first."
            ) from None
        stretch = offset_range_of(kafka, source, since_ms, until_ms)
        return cls(deployment, stretch, source, target, since_ms, until_ms, customer)

    def contents(self, passed: Callable[[int], None] = lambda _offsets: None) -> RangeContents:
        """Read the calls that would be sent. Nothing is sent."""
        totals, unit = RangeContents(), quantum(self.deployment.policy.cost_decimals)
        for message in self._records(self.stretch, passed):
            key = (message.key() or b"").decode(errors="replace")
            usage = self._usage(bytes(message.value() or b""), key, unit)
            if usage is None:
                totals.unreadable += 1
            else:
                totals.customers.setdefault(key, Amount()).count(*usage)
        return totals

    def names(self) -> set[str]:
        """Return the customer ids of all calls in the range, not only of the selected customer."""
        return {
            (message.key() or b"").decode(errors="replace")
            for message in scan(self.deployment.kafka, self.stretch)
            if order_in(message.headers(), message.value()) is None
        }

    def run(
        self,
        sender: CommandProducer,
        checkpoint: Path | None = None,
        passed: Callable[[int], None] = lambda _offsets: None,
    ) -> int:
        """Send the records; return their number. A repeat with the same `checkpoint` continues where the last run
        stopped.

        Raises:
            ConfigurationError: the checkpoint belongs to another replay.
            Unavailable: Kafka stopped answering. Some records may have been sent.
        """
        state = self._resumed(checkpoint)
        ranges = {
            number: (max(start, state.next.get(number, start)), end)
            for number, (start, end) in self.stretch.ranges.items()
        }
        records, count = self._records(replace(self.stretch, ranges=ranges), passed), 0
        while batch := list(islice(records, _BATCH)):
            count += sender.send(self._outgoing(batch))
            for message in batch:
                state.next[message.partition() or 0] = (message.offset() or 0) + 1
            if checkpoint is not None:
                _write(checkpoint, state)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        return count

    def asked(self) -> dict[str, str]:
        """Return the parameters that distinguish this replay from another."""
        return {
            "source": self.source,
            "into": self.target_topic,
            "customer": self.customer,
            "since_ms": str(self.since_ms),
            "until_ms": str(self.until_ms),
        }

    def _records(self, stretch: OffsetRange, passed: Callable[[int], None]) -> Iterator[Message]:
        """Yield the records of the range, without operators' orders, which must not be repeated."""
        customer_key = self.customer.encode()
        for message in scan(self.deployment.kafka, stretch, passed):
            is_call = order_in(message.headers(), message.value()) is None
            if is_call and (not customer_key or message.key() == customer_key):
                yield message

    def _outgoing(self, batch: Iterable[Message]) -> Iterator[Outgoing]:
        for message in batch:
            yield Outgoing(self.target_topic, message.key(), message.value())

    def _usage(self, value: bytes, customer: str, unit: Decimal) -> tuple[int, Decimal] | None:
        if self.source == self.deployment.topics.raw:
            usage = usage_of(value, customer, unit)
            return None if usage is None else (usage.total_tokens, usage.cost)
        try:
            call = _enriched(value)
        except UNDECODABLE:
            return None
        return call.total_tokens, call.cost_usd

    def _resumed(self, checkpoint: Path | None) -> Checkpoint:
        parameters = self.asked()
        if checkpoint is None or not checkpoint.exists():
            return Checkpoint(parameters)
        try:
            state = msgspec.json.decode(checkpoint.read_bytes(), type=Checkpoint)
        except (OSError, *UNDECODABLE) as error:
            raise ConfigurationError("--checkpoint", f"{checkpoint} cannot be read: {type(error).__name__}") from error
        if state.asked != parameters:
            raise ConfigurationError("--checkpoint", f"{checkpoint} belongs to another replay")
        return state


def _write(path: Path, state: Checkpoint) -> None:
    """Replace the file atomically, so that it is never incomplete."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(msgspec.json.encode(state))
    beside.replace(path)
