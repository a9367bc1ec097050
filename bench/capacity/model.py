"""From calls a second to partitions, processes, bytes and requests: pure, of measured figures and a few chosen values."""

from dataclasses import dataclass
from math import ceil

DAY_S = 86_400
MONTH_S = 30 * DAY_S
#: A partition's meter commits at most so often (streams/app.py: 0.2 s between two transactions).
STEPS_A_SECOND = 5
#: Days that Kafka keeps a topic of calls or events (schemas/topics.py); the changelog keeps the dedupe retention instead.
KEPT_DAYS = {"raw": 30, "enriched": 14, "events": 30, "receipts": 30, "deliveries": 30}
#: Number of events that Lago takes in one request.
EVENTS_A_POST = 100


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; CPU times in microseconds of one core, sizes in bytes.

    Fields:
        ingress_us: of one post with one call.
        meter_us, project_us: of a call; the projector's with Postgres.
        sink_us: of an event.
        a_call, an_event: bytes in Kafka by topic, before replication.
        changelog_identity, changelog_step: bytes that stay in the changelog of an identity, and of the step that counted it.
        identity, step: memory of an identity and of a step, in the meter that has its partition.
        identity_us, step_us: CPU time to restore them.
        row_call, row_event: bytes in Postgres, with indexes.
    """

    ingress_us: float
    meter_us: float
    project_us: float
    sink_us: float
    a_call: dict[str, float]
    an_event: dict[str, float]
    changelog_identity: float
    changelog_step: float
    identity: float
    step: float
    identity_us: float
    step_us: float
    row_call: float
    row_event: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for, and how much is left free.

    Fields:
        calls_s: calls a second at the busiest hour; every figure is for that rate all day long.
        calls_an_event: calls that one customer makes of one model in a minute.
        dedupe_hours: `DEDUPE_RETENTION_HOURS`.
        replication: copies of a record in Kafka.
        busy: the share of a core that may be used.
        least: the least number of processes of a role, so that one may be missing.
        meter_memory: bytes of identities that one meter may hold.
        broker_write_s, broker_disk: bytes that one broker may write a second, and keep.
        initial_partitions: partitions grow by whole multiples of this number.
    """

    calls_s: float
    calls_an_event: float = 10.0
    dedupe_hours: int = 24
    replication: int = 3
    busy: float = 0.5
    least: int = 2
    meter_memory: float = 8e9
    broker_write_s: float = 30e6
    broker_disk: float = 4e12
    initial_partitions: int = 12


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demand needs. Bytes and memory are sums over all processes, with replication where Kafka's are meant.

    Fields:
        cores: CPU time a second by role; `project` with Postgres.
        processes: by role, one core each.
        restore_s: CPU seconds in which one meter takes over what it has at most.
        posts_s: requests a second to Lago, with full batches.
    """

    calls_s: float
    cores: dict[str, float]
    processes: dict[str, int]
    partitions: int
    identities: float
    steps: float
    identity_memory: float
    restore_s: float
    changelog: float
    kafka_write_s: float
    kafka_disk: float
    brokers: int
    postgres_month: float
    events_s: float
    posts_s: float


def plan(demand: Demand, figures: Figures) -> Plan:
    """Every result grows with `calls_s` or stays, but the one that is a share of a process, `restore_s`."""
    calls_s, events_s = demand.calls_s, demand.calls_s / demand.calls_an_event
    cores = {
        "ingress": calls_s * figures.ingress_us / 1e6,
        "meter": calls_s * figures.meter_us / 1e6,
        "sink": events_s * figures.sink_us / 1e6,
        "project": calls_s * figures.project_us / 1e6,
    }
    processes = {role: max(demand.least, ceil(used / demand.busy)) for role, used in cores.items()}
    retention_s = demand.dedupe_hours * 3600
    identities = calls_s * retention_s
    processes["meter"] = max(processes["meter"], ceil(identities * figures.identity / demand.meter_memory))
    workers = max(processes[role] for role in ("meter", "sink", "project"))
    partitions = demand.initial_partitions * ceil(workers / demand.initial_partitions)
    steps = min(calls_s, partitions * STEPS_A_SECOND) * retention_s
    memory = identities * figures.identity + steps * figures.step
    restore_us = identities * figures.identity_us + steps * figures.step_us
    changelog = identities * figures.changelog_identity + steps * figures.changelog_step
    rates = {topic: calls_s * size for topic, size in figures.a_call.items()}
    rates |= {topic: events_s * size for topic, size in figures.an_event.items()}
    written_s = demand.replication * sum(rates.values())
    kept = sum(rates[topic] * days * DAY_S for topic, days in KEPT_DAYS.items()) + changelog
    disk = demand.replication * kept
    needed = max(ceil(written_s / demand.broker_write_s), ceil(disk / demand.broker_disk))
    return Plan(
        calls_s=calls_s,
        cores=cores,
        processes=processes,
        partitions=partitions,
        identities=identities,
        steps=steps,
        identity_memory=memory,
        restore_s=restore_us / 1e6 / processes["meter"],
        changelog=changelog,
        kafka_write_s=written_s,
        kafka_disk=disk,
        brokers=max(demand.replication, needed),
        postgres_month=MONTH_S * (calls_s * figures.row_call + events_s * figures.row_event),
        events_s=events_s,
        posts_s=events_s / EVENTS_A_POST,
    )
