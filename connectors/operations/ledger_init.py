"""Starts halted ledgers again, one partition at a time: makes a plan, writes the audit line, carries out the plan."""

from dataclasses import replace
from decimal import Decimal

import msgspec
from aiokafka.errors import ProducerFenced

from connectors.config.deployment import Deployment
from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.admin import topic_ids
from connectors.kafka.client_config import aiokafka_config
from connectors.kafka.topic_scan import OffsetRange, header_of, number_in_header, offset_range_of, scan
from connectors.operations.audit_record import audited
from connectors.operations.damaged_records import DamagedRecords
from connectors.operations.past_counts import grown_from, past_counts
from connectors.operations.sender import CommandProducer, Outgoing
from schemas.decoding import DAMAGE, Unreadable, decoder
from schemas.errors import MeterbridgeError, Rejected
from schemas.ledger import Sum
from schemas.money import EXACT, ZERO, add
from schemas.records import LagoEvent, Manifest, WriteOff
from streams.core.metering.lago_event import is_rated
from streams.runtime import clock
from streams.state.ledger import LedgerConfig
from streams.state.ledger_restart import ANEW, EmittedTotals, RestartPlan, RestartPosition, begin, plan
from streams.state.step_writes import CONTROL, MANIFEST, RAW_PARTITION, SEAL_SEQ, WRITE_OFF, order_in

ACTION = "ledger.init"
_BATCH = 10_000
_ATTEMPTS = 5
_HUNDRED = Decimal(100)

_event = decoder(LagoEvent)
_manifest = decoder(Manifest)


def place_of(deployment: Deployment) -> LedgerConfig:
    """Return the same configuration of the ledgers that the meter's worker uses.

    Raises:
        TopicProblem: `topic_missing`.
    """
    topics = deployment.topics
    ids = topic_ids(deployment.kafka, [topics.raw])
    return LedgerConfig(
        aiokafka_config(deployment.kafka),
        topics,
        ids[topics.raw],
        deployment.partitions,
        deployment.kafka_id("meter"),
        deployment.name,
    )


async def plans(
    place: LedgerConfig, partitions: list[int], restart_at: RestartPosition
) -> list[RestartPlan | MeterbridgeError]:
    """Make the plan for each partition, or return the error that prevents it. Raises: aiokafka's errors."""
    plans_or_errors: list[RestartPlan | MeterbridgeError] = []
    for partition in partitions:
        try:
            plans_or_errors.append(await plan(place, partition, restart_at))
        except MeterbridgeError as error:
            plans_or_errors.append(error)
    return plans_or_errors


async def carry_out(
    deployment: Deployment,
    sender: CommandProducer,
    place: LedgerConfig,
    planned: RestartPlan,
    restart_at: RestartPosition,
    why: str,
) -> str:
    """Carry out the plan of one partition; return the audit line's id.

    Raises:
        Rejected: `ledger_moved`. Unavailable: Kafka did not acknowledge the line or the records.
    """
    target = {
        "partition": str(planned.partition),
        "reason": planned.reason,
        "from": str(planned.stood),
        "to": str(planned.next),
        "filled": str(planned.fill),
        "forgot_us": str(planned.forgot_us),
    }
    sealed, damaged = EmittedTotals(), DamagedRecords()
    if planned.reason in ANEW:
        begun_with = grown_from(past_counts(deployment), planned.partition)
        sealed = replace(sealed_before(deployment, planned.partition, damaged), grown_from=begun_with)
    if damaged.sentences():
        target["left_out"] = "; ".join(damaged.sentences())
    audit_id = audited(deployment, sender, ACTION, target, reason=why, count=planned.skipped)
    for left in reversed(range(_ATTEMPTS)):
        try:
            await begin(place, planned.partition, restart_at, planned, sealed)
            break
        except ProducerFenced:  # a worker may just have tried to open the halted ledger
            if not left:
                raise Rejected("ledger_moved", "workers open the ledger all the time") from None
    if planned.fill:
        _fill(deployment.kafka, sender, place.topics.raw, planned, audit_id)
    return audit_id


def _fill(kafka: KafkaConnection, sender: CommandProducer, raw: str, planned: RestartPlan, audit_id: str) -> None:
    """Move the end of the raw topic up to the ledger's position with write-off orders that write off nothing.

    Calls that arrive meanwhile may be below the position, where they are not counted. So they are sent again.
    """
    order = msgspec.json.encode(WriteOff(audit_id, clock.now_us(), 0))
    filler = Outgoing(raw, b"", order, planned.partition, ((CONTROL, WRITE_OFF),))
    for start in range(0, planned.fill, _BATCH):
        sender.send([filler] * min(_BATCH, planned.fill - start))
    below = OffsetRange(raw, {planned.partition: (planned.next - planned.fill, planned.next)})
    calls = [message for message in scan(kafka, below) if order_in(message.headers(), message.value()) is None]
    sender.send(Outgoing(raw, message.key(), message.value(), planned.partition) for message in calls)


def sealed_before(deployment: Deployment, partition: int, damaged: DamagedRecords) -> EmittedTotals:
    """Collect the events that a lost ledger had emitted, from the first one on after which the topic still has all.

    Kafka deletes the events of each partition of the topic at another time, so some older ones may still be there. They
    are left out: the tables have the sums of what came before.

    Args:
        damaged: counts the records that cannot be read; they are left out.
    """
    stretch = offset_range_of(deployment.kafka, deployment.topics.events)
    found: dict[int, tuple[int, Decimal, Decimal]] = {}
    for message in scan(deployment.kafka, stretch):
        number = number_in_header(message, SEAL_SEQ) or 0
        if header_of(message, RAW_PARTITION) != str(partition) or number in found:
            continue
        amounts = damaged.read(_amounts, message)
        manifest = damaged.read(_manifest, message, header_of(message, MANIFEST).encode()) if amounts else None
        if amounts is None or manifest is None:
            continue
        found[number] = manifest.count, *amounts
    highest = first = max(found, default=0)
    while first - 1 in found:
        first -= 1
    calls, cost, margin = 0, ZERO, ZERO
    for number in range(max(first, 1), highest + 1):
        count, billed, cost_of_event = found[number]
        calls += count
        cost, margin = add(cost, cost_of_event), add(margin, add(billed, -cost_of_event))
    return EmittedTotals(highest, Sum(calls, cost), margin, first=max(first, 1))


def _amounts(value: bytes) -> tuple[Decimal, Decimal]:
    """Return what an event bills, and the cost of its calls, dollars. Raises: Unreadable."""
    event = _event(value)
    try:
        billed = EXACT.divide(EXACT.create_decimal(event.precise_total_amount_cents or 0), _HUNDRED)
        return billed, cost_of(event, billed)
    except DAMAGE as error:
        raise Unreadable(type(error).__name__) from None


def cost_of(event: LagoEvent, billed: Decimal) -> Decimal:
    """Return the cost of an event's calls, dollars. With a rate card the event contains it; otherwise it is the billed
    amount.
    """
    return EXACT.create_decimal(event.properties["cost_usd"]) if is_rated(event) else billed
