"""The tables of docs/capacity.md."""

from collections.abc import Iterable, Sequence
from typing import Any

from bench.capacity.model import Figures, Plan
from bench.capacity.results import Rows

#: Above this rate nothing was tried as a whole or near it.
_CALCULATED = 10_000
_FLOW = {
    "raw": "`litellm.usage.raw`, a call as the flat callback sends it, compressed",
    "raw_plain": "the same, not compressed",
    "raw_slp": "`litellm.usage.raw`, a StandardLoggingPayload, compressed",
    "enriched": "`litellm.usage.enriched`, a call",
    "changelog": "`meter.changelog`, a call, before Kafka has compacted it",
    "row_call": "Postgres, `llm_usage_log`, a call with its indexes",
    "row_event": "Postgres, `usage_parts`, an event with its indexes",
    "sink_us": "CPU time of the sink, an event (its idle time is in it), us",
}
_NAMES = {"events": "billing.lago.events", "receipts": "billing.receipts", "deliveries": "billing.deliveries"}
_ROLES = ("ingress", "meter", "sink", "project")


def machines_table(plans: Sequence[Plan]) -> str:
    """Processes of each role, partitions, brokers."""
    head = ("calls a second", *_ROLES, "partitions", "brokers", "which figures")
    rows = []
    for one in plans:
        used = (f"{one.processes[role]} ({_short(one.cores[role])})" for role in _ROLES)
        how = "calculated" if one.calls_s <= _CALCULATED else "on paper"
        rows.append((f"{one.calls_s:,.0f}", *used, f"{one.partitions:,}", f"{one.brokers:,}", how))
    return _table(head, rows)


def bytes_table(plans: Sequence[Plan]) -> str:
    """Memory, bytes and requests."""
    head = (
        *("calls a second", "identities", "memory of all meters for them", "restore, CPU s a meter", "their changelog"),
        *("Kafka writes a second", "Kafka keeps", "Postgres a month", "events a second", "requests a second to Lago"),
    )
    rows = [
        (
            *(f"{one.calls_s:,.0f}", f"{one.identities:,.0f}", _size(one.identity_memory), f"{one.restore_s:.2g}"),
            *(_size(one.changelog), _size(one.kafka_write_s), _size(one.kafka_disk), _size(one.postgres_month)),
            *(f"{one.events_s:,.0f}", _short(one.posts_s)),
        )
        for one in plans
    ]
    return _table(head, rows)


def customers_table(rows: Rows) -> str:
    """What mapped customers cost each process."""
    head = ("customers", "process", "CPU s until ready", "CPU when idle", "memory (PSS), MB", "most resident, MB")
    return _table(
        head,
        [
            (
                *(f"{row['customers']:,}", row["process"], f"{row['start_cpu_s']:.1f}"),
                *(f"{row['idle_cpu_percent']:.1f} %", f"{row['pss_mb']:,.0f}", f"{row['peak_mb']:,.0f}"),
            )
            for row in rows
        ],
    )


def identities_table(rows: Rows) -> str:
    """What a changelog of identities costs."""
    head = (
        *("identities", "ledgers", "calls a step", "changelog, MB", "bytes an identity", "restore, CPU s"),
        *("memory, MB", "most, MB", "bytes of memory an identity"),
    )
    return _table(
        head,
        [
            (
                *(f"{row['identities']:,}", row["partitions"], f"{row['a_step']:,}", f"{row['changelog_mb']:,.0f}"),
                *(f"{row['changelog_mb'] * 1e6 / row['identities']:.0f}", f"{row['restore_cpu_s']:.2f}"),
                *(f"{row['pss_mb']:,.0f}", f"{row['peak_mb']:,.0f}", f"{row['pss_mb'] * 1e6 / row['identities']:.0f}"),
            )
            for row in rows
        ],
    )


def steps_table(rows: Rows) -> str:
    """Memory of steps."""
    return _table(
        ("steps", "calls a step", "bytes of memory a step", "most"),
        [(f"{row['steps']:,}", row["a_step"], row["memory"], row["most"]) for row in rows],
    )


def flow_table(rows: Rows) -> str:
    """What calls leave behind."""
    (flow,) = rows
    lines = [(words, f"{flow[name]:,.0f}") for name, words in _FLOW.items()]
    lines += [(f"`{_NAMES[topic]}`, an event", f"{size:,.0f}") for topic, size in flow["an_event"].items()]
    lines += [
        ("calls billed, in events, by requests to Lago", f"{flow['calls']:,}, {flow['events']:,}, {flow['posts']}"),
        (
            "calls an event, events a request",
            f"{flow['calls'] / flow['events']:.1f}, {flow['events'] / flow['posts']:.0f}",
        ),
    ]
    return _table(("what", "bytes or microseconds"), lines)


def held_table(rows: Rows) -> str:
    """What held windows cost."""
    return _table(
        ("held windows", "bytes of memory each", "bytes in the changelog each"),
        [(f"{row['windows']:,}", f"{row['memory']:,}", row["changelog"]) for row in rows],
    )


def figures_table(known: Figures) -> str:
    """What the calculation begins with."""
    lines = [
        (
            "CPU of a call: ingress (one a request), meter, projector with Postgres",
            f"{known.ingress_us:.0f}, {known.meter_us:.0f}, {known.project_us:.0f} us",
        ),
        ("CPU of an event: sink", f"{known.sink_us:.0f} us"),
        (
            "Kafka, of a call: " + ", ".join(known.a_call),
            ", ".join(f"{size:,.0f}" for size in known.a_call.values()) + " bytes",
        ),
        (
            "Kafka, of an event: " + ", ".join(known.an_event),
            ", ".join(f"{size:,.0f}" for size in known.an_event.values()) + " bytes",
        ),
        (
            "changelog, of an identity and of its step",
            f"{known.changelog_identity:.0f}, {known.changelog_step:.0f} bytes",
        ),
        ("memory, of an identity and of its step", f"{known.identity:.0f}, {known.step:.0f} bytes"),
        ("restore, of an identity and of its step", f"{known.identity_us:.2f}, {known.step_us:.1f} us"),
        ("Postgres, of a call and of an event", f"{known.row_call:,.0f}, {known.row_event:,.0f} bytes"),
    ]
    return _table(("figure", "value"), lines)


def _table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def _short(count: float) -> str:
    return f"{count:.2g}" if count < 10 else f"{count:,.0f}"


def _size(count: float) -> str:
    for size, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
