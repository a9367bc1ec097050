"""Rebuilds a lost or damaged ledger from the other topics, so that nothing is billed twice or lost.

The new ledger knows every call that had left the old one. It reads the raw topic again from the first call that had
not.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec
from aiokafka.errors import ProducerFenced

from connectors.config.deployment import Deployment
from connectors.kafka.growth import groups_with_members
from connectors.kafka.topic_scan import offset_range_of, scan
from connectors.operations.audit_check import RECOVER
from connectors.operations.audit_record import audited
from connectors.operations.ledger_init import place_of
from connectors.operations.past_counts import ancestors, grown_from, past_counts
from connectors.operations.rebuild_evidence import Evidence, evidence_of
from connectors.operations.sender import CommandProducer
from schemas.decoding import decoder
from schemas.errors import Rejected
from schemas.ledger import LEDGER_VERSION, Counters, Position
from schemas.records import AuditRecord
from streams.core.metering.batch_identities import HOUR_MS
from streams.core.metering.normalise import FUTURE_US
from streams.state.ledger import LedgerConfig, check_partitions, owning
from streams.state.ledger_rebuild import SOUND, Found, look, write_anew

ACTION = "ledger.rebuild"
_audit = decoder(AuditRecord)


@dataclass(frozen=True, slots=True)
class Rebuild:
    """The plan of a rebuild, or its result.

    Fields:
        state: why the ledger cannot be used; `sound` = it can.
        stood: offset up to which calls were counted.
        next: first offset from which calls are counted again.
        waiting: number of calls that were open or held. They are counted again.
        identities: number of identities that are remembered.
        gaps: sentences about lost information.
    """

    partition: int
    state: str
    stood: int = 0
    next: int = 0
    waiting: int = 0
    identities: int = 0
    gaps: tuple[str, ...] = ()
    audit_id: str = ""


def check_stopped(deployment: Deployment) -> None:
    """Check that no meter runs: it would take the partition back while its topics are read. Raises: Rejected:
    `workers_running`.
    """
    if groups_with_members(deployment.kafka, [deployment.kafka_id("meter")]):
        raise Rejected("workers_running", "stop these roles first, a killed one counts for 15 s: meter")


async def planned(deployment: Deployment, partition: int) -> Rebuild:
    """Plan a rebuild. This fences no worker and changes nothing.

    Raises:
        TopicProblem: `partitions_changed`, `offset_out_of_range`. LedgerBroken: `newer_version`.
    """
    place = place_of(deployment)
    found = await _found(place, partition)
    if found.state == SOUND:
        return Rebuild(partition, SOUND)
    return _summary(partition, found, await _evidence(deployment, place, partition, found))


async def rebuild(deployment: Deployment, partition: int, why: str, *, accept_gaps: bool) -> Rebuild:
    """Rebuild the ledger of a partition, if it is not sound.

    Raises:
        Rejected: `evidence_gap`, without `accept_gaps`; `ledger_moved`. Everything that `planned` raises.
    """
    place = place_of(deployment)
    if (await _found(place, partition)).state == SOUND:
        return Rebuild(partition, SOUND)
    try:
        async with owning(place, partition) as writer:
            found = await _found(place, partition)  # only now is the state final
            evidence = await _evidence(deployment, place, partition, found)
            summary = _summary(partition, found, evidence)
            if evidence.gaps and not accept_gaps:
                raise Rejected("evidence_gap", f"partition {partition}: {'; '.join(evidence.gaps)}")
            target = {"partition": str(partition), "reason": found.state, "gaps": "; ".join(evidence.gaps)}
            target |= {"from": str(summary.stood), "to": str(summary.next)}
            audit_id = await asyncio.to_thread(
                audited,
                deployment,
                CommandProducer(deployment.kafka),
                ACTION,
                target,
                reason=why,
                count=summary.waiting,
            )
            position = await asyncio.to_thread(_position, deployment, place, partition, evidence)
            position.recounted_to = summary.stood
            hour = evidence.newest_ms // HOUR_MS
            seen, jobs, withdrawn = evidence.seen, evidence.jobs, evidence.withdrawn
            await write_anew(writer, place, partition, found.keys, position, seen, jobs, hour, withdrawn)
            return replace(summary, audit_id=audit_id)
    except ProducerFenced:
        raise Rejected("ledger_moved", "a worker was started meanwhile: stop it, and repeat") from None


async def _found(place: LedgerConfig, partition: int) -> Found:
    found = await look(place, partition)
    check_partitions(place, found.raw)
    return found


async def _evidence(deployment: Deployment, place: LedgerConfig, partition: int, found: Found) -> Evidence:
    stood = found.raw.begin if found.raw.committed is None else found.raw.committed
    if stood > found.raw.end:
        raise Rejected(
            "offsets_would_repeat", f"the log ends at {found.raw.end}, before {stood}: `ledger init --from latest`"
        )
    older = ancestors(await asyncio.to_thread(past_counts, deployment), partition)
    known = stood if found.next is None else found.next
    return await asyncio.to_thread(evidence_of, deployment, place.topic_id, partition, stood, known, older)


def _summary(partition: int, found: Found, evidence: Evidence) -> Rebuild:
    stood = found.raw.begin if found.raw.committed is None else found.raw.committed
    known = len(evidence.seen)
    return Rebuild(partition, found.state, stood, evidence.next, evidence.waiting, known, tuple(evidence.gaps))


def _recovered_us(deployment: Deployment) -> int:
    """Return when the topics started again after a loss (`meterbridge recover`), microseconds since 1970 UTC; 0 =
    never.

    The topics do not contain what was billed before. The result allows for senders whose clocks were ahead.
    """
    recovered = 0
    for message in scan(deployment.kafka, offset_range_of(deployment.kafka, deployment.topics.audit)):
        with suppress(msgspec.DecodeError):
            line = _audit(message.value() or b"")
            recovered = max(recovered, line.at + FUTURE_US if line.action == RECOVER else 0)
    return recovered


def _position(deployment: Deployment, place: LedgerConfig, partition: int, evidence: Evidence) -> Position:
    emitted = evidence.emitted
    position = Position(
        evidence.next, evidence.clock_ms, place.topic_id, place.partitions, place.deployment, emitted.seal_seq
    )
    position.counters = Counters(received=emitted.sums, folded=emitted.sums, sealed=emitted.sums)
    position.margin, position.summed_from, position.v = emitted.margin, emitted.first, LEDGER_VERSION
    position.forgot_us = max(evidence.forgot_us, _recovered_us(deployment))
    position.grown_from = grown_from(past_counts(deployment), partition)
    return position
