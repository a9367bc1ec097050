"""Restores the topics of a lost Kafka cluster from Postgres into an empty one, so that a backfill bills each call once
(docs/adr/0053).

The steps, in this order: the audit line, offsets that keep a meter from starting, the tables, the topics that hold only
state, the events that Lago has not accepted, and last the ledgers. After an interruption, a repeat does the remaining
steps.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from aiokafka import TopicPartition

from connectors.config.deployment import Deployment
from connectors.config.roles import ROLES
from connectors.kafka.admin import topic_ids
from connectors.kafka.growth import groups_with_members
from connectors.kafka.topic_scan import header_of, offset_range_of, scan
from connectors.lago.client import LagoClient
from connectors.operations.audit_check import RECOVER
from connectors.operations.audit_record import audited
from connectors.operations.ledger_init import place_of
from connectors.operations.ledger_totals import positions_of
from connectors.operations.recovered_records import RECOVERED, dead_letters_of, retries_of, states_of
from connectors.operations.recovery_at_lago import only_at_lago
from connectors.operations.sender import CommandProducer
from connectors.postgres.recover import (
    LostCalls,
    NewTopics,
    Stored,
    begin_anew,
    latest_part,
    projected_from,
    stored_state,
    unsent_parts,
)
from schemas.decoding import decoder
from schemas.errors import Rejected
from schemas.ledger import LEDGER_VERSION, Position
from schemas.money import plain
from schemas.records import LagoEvent
from streams.core.metering.event_owner import belongs_to
from streams.core.metering.normalise import FUTURE_US
from streams.runtime import clock
from streams.state.ledger import owning
from streams.state.ledger_rebuild import write_anew

_event = decoder(LagoEvent)


@dataclass(frozen=True, slots=True)
class Recovery:
    """The plan of a recovery, or its result.

    Fields:
        waiting, dead: number of events that Lago has not accepted, and of events that it refused.
        only_at_lago: number of events that Lago has and Postgres did not know.
        lost_calls, lost_usd: counted calls that are in no event; a backfill bills them.
        unknown_calls: number of calls that are billed and not in the usage log, so they cannot be identified.
        undecided_calls, undecided_usd, undecided_events: held usage that may be billed already, by one of these events
            that only Lago has.
        lost_rates: ids of rate card versions that are lost.
        not_asked: orgs of closed organisations; Lago was not asked about them.
        ledgers: partitions whose ledgers start again.
    """

    customers: int
    orgs: int
    rates: int
    waiting: int
    dead: int
    only_at_lago: int
    lost_calls: int
    lost_usd: Decimal
    unknown_calls: int
    undecided_calls: int
    undecided_usd: Decimal
    undecided_events: Sequence[str]
    lost_rates: Sequence[str]
    not_asked: int
    ledgers: int
    audit_id: str = ""


@dataclass(frozen=True, slots=True)
class Choices:
    """The decisions that a person makes if neither the tables nor Lago show the answer.

    Fields:
        undecided: what to do with held usage that may be in an event that only Lago has: treat it as `billed` or as
            `lost`; `""` = refuse.
        accept_lost_rates: continue without the lost rate card versions.
    """

    undecided: str = ""
    accept_lost_rates: bool = False


async def recover(
    deployment: Deployment,
    url: str,
    lagos: Mapping[str, LagoClient],
    why: str,
    *,
    do: bool,
    closed: Collection[str] = (),
    choices: Choices = Choices(),
) -> Recovery:
    """Restore the topics from Postgres, or only plan it.

    Args:
        url: URL of Postgres, with an account that owns the tables.
        lagos: the client of each Lago organisation by its name.
        do: False = change nothing.
        closed: names of Lago organisations that the settings mark as closed.

    Raises:
        Rejected: `workers_running`, `topics_not_empty`, `not_lost`, `other_deployment`, `unknown_organization`, `too_many_events`,
            `undecided_usage`, `rates_lost`.
        LagoIntegrationError, TopicProblem, Unavailable: Lago, Kafka or Postgres does not answer or refuses. A repeat
            does the remaining steps.
    """
    new = await asyncio.to_thread(_new_topics, deployment)
    begun = await asyncio.to_thread(_begun, deployment)
    await _check_lost(url, new, deployment.name)
    stored = await stored_state(url)
    unsent = await unsent_parts(url)
    found = await only_at_lago(url, lagos, stored.orgs, unsent, deployment.policy, closed)
    lost = await begin_anew(url, found, new, dry_run=True, undecided=choices.undecided)
    told = _told(deployment, stored, found, lost, begun, closed)
    if not do:
        return told
    _check_decided(told, choices)
    target = {"waiting": str(told.waiting), "unknown_calls": str(lost.missing), "usd": plain(lost.usd)}
    if told.undecided_calls:
        target |= {"undecided": choices.undecided, "undecided_calls": str(told.undecided_calls)}
    sender = CommandProducer(deployment.kafka)
    audit_id = await asyncio.to_thread(
        audited, deployment, sender, RECOVER, target, reason=why, count=lost.calls, cost_usd=lost.usd
    )
    await _keep_meters_out(deployment, begun)
    await begin_anew(url, found, new, dry_run=False, undecided=choices.undecided)
    await asyncio.to_thread(_write, deployment, sender, stored, {event.transaction_id for event in found})
    await _begin_ledgers(deployment, begun)
    return replace(told, audit_id=audit_id)


def _new_topics(deployment: Deployment) -> NewTopics:
    topics = deployment.topics
    own = {topics.customers, topics.orgs, topics.rates, topics.retry, topics.dlq}
    for topic in (*sorted(own), topics.enriched, topics.events, topics.receipts):
        for message in scan(deployment.kafka, offset_range_of(deployment.kafka, topic)):
            if topic not in own or not header_of(message, RECOVERED):
                raise Rejected("topics_not_empty", f"{topic} has records that this command did not write")
    if running := groups_with_members(deployment.kafka, [deployment.kafka_id(role) for role in ROLES]):
        raise Rejected("workers_running", f"stop these first, a killed one counts for 15 s: {', '.join(running)}")
    enriched_id = topic_ids(deployment.kafka, [topics.enriched])[topics.enriched]
    return NewTopics(topics.projected, topics.enriched, enriched_id, deployment.partitions)


def _begun(deployment: Deployment) -> list[int]:
    """Return the partitions whose ledgers an earlier run has begun. Such a ledger has a position; an unfinished one has
    none.

    Raises:
        Rejected: `topics_not_empty`: all ledgers are begun, or a meter has begun one. That ledger would count billed
            calls again.
    """
    topic, positions = deployment.topics.changelog, positions_of(deployment)
    if len(positions) == deployment.partitions:
        raise Rejected("topics_not_empty", f"{topic} has ledgers")
    if others := sorted(number for number, position in positions.items() if not position.forgot_us):
        raise Rejected(
            "topics_not_empty", f"{topic} has a ledger that this command did not begin: partition {others[0]}"
        )
    return sorted(positions)


def _check_decided(told: Recovery, choices: Choices) -> None:
    if told.lost_rates and not choices.accept_lost_rates:
        raise Rejected(
            "rates_lost",
            f"calls were priced by rate cards of which nothing is left: {', '.join(told.lost_rates)}; go on with "
            "--accept-lost-rates, and put them again before the meter starts",
        )
    if told.undecided_calls and not choices.undecided:
        events = ", ".join(told.undecided_events[:5])
        raise Rejected(
            "undecided_usage",
            f"{told.undecided_calls} held calls of {plain(told.undecided_usd)} dollars may be billed by events that only Lago has ({events}); "
            "look at these, and say --undecided billed or --undecided lost",
        )


async def _check_lost(url: str, new: NewTopics, deployment: str) -> None:
    known = await projected_from(url, new.enriched)
    if not known:
        raise Rejected(
            "not_lost", f"this database was never filled from {new.enriched}: it knows nothing of what is billed"
        )
    if known.get(new.enriched_id):
        raise Rejected("not_lost", f"the tables were filled from this very topic: {new.enriched}")
    latest = await latest_part(url)
    if latest and not belongs_to(deployment, latest):
        raise Rejected("other_deployment", f"the newest event in the tables is {latest}, and no event of {deployment}")


def _told(
    deployment: Deployment,
    stored: Stored,
    found: list[LagoEvent],
    lost: LostCalls,
    begun: list[int],
    closed: Collection[str],
) -> Recovery:
    dead = sum(row["status"] == "failed" for row in stored.events)
    return Recovery(
        customers=len(stored.customers),
        orgs=len(stored.orgs),
        rates=len(stored.rates),
        waiting=len(stored.events) - dead,
        dead=dead,
        only_at_lago=len(found),
        lost_calls=lost.calls,
        lost_usd=lost.usd,
        unknown_calls=lost.missing,
        undecided_calls=lost.undecided.calls,
        undecided_usd=lost.undecided.usd,
        undecided_events=lost.undecided.events,
        lost_rates=stored.lost_rates,
        not_asked=sum(org["organization"] in closed for org in stored.orgs),
        ledgers=deployment.partitions - len(begun),
    )


def _write(deployment: Deployment, sender: CommandProducer, stored: Stored, taken: set[str]) -> None:
    topics = deployment.topics
    sender.send(states_of(topics, stored))
    for topic, records in (
        (topics.retry, retries_of(topics, deployment.name, stored.events)),
        (topics.dlq, dead_letters_of(topics, deployment.name, stored.events)),
    ):
        there = taken | _ids_in(deployment, topic)
        sender.send(record for name, record in records if name not in there)


def _ids_in(deployment: Deployment, topic: str) -> set[str]:
    messages = scan(deployment.kafka, offset_range_of(deployment.kafka, topic))
    return {_event(message.value() or b"").transaction_id for message in messages}


async def _keep_meters_out(deployment: Deployment, begun: Iterable[int]) -> None:
    """Commit an offset for each partition without a ledger, so that a meter that starts after an interrupted run halts
    (`ledger_missing`).

    Without the offset, the meter would begin a ledger that does not know which calls are billed.
    """
    place = place_of(deployment)
    for partition in set(range(deployment.partitions)).difference(begun):
        async with owning(place, partition) as writer:
            await writer.commit([], TopicPartition(place.topics.raw, partition), 0, place.group)


async def _begin_ledgers(deployment: Deployment, begun: Iterable[int]) -> None:
    """Begin a ledger in each partition without one. It folds no call from before this moment until the usage log was
    asked, because the call may be billed.

    `FUTURE_US` is added, because the clock of a sender may have been ahead.
    """
    place = place_of(deployment)
    for partition in set(range(deployment.partitions)).difference(begun):
        position = Position(0, 0, place.topic_id, place.partitions, place.deployment)
        position.v, position.forgot_us = LEDGER_VERSION, clock.now_us() + FUTURE_US
        async with owning(place, partition) as writer:
            await write_anew(writer, place, partition, (), position, {}, {}, 0)
