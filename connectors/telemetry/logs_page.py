"""Generates docs/logs.md from the code: `python -m connectors.telemetry.logs_page` prints it.

Names of events and fields are read from the calls of loggers in the source. Meanings of fields are in
connectors/telemetry/log_fields.toml, those of events in log_events.toml. The tables below are for calls that do not
have their names as text.
"""

import ast
import json
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import msgspec


class LogField(msgspec.Struct, forbid_unknown_fields=True):
    """A field. `stable`: a later release keeps its name and meaning, or the changelog says what replaces it."""

    kind: str
    meaning: str
    example: object
    stable: bool = False


_HERE: Final = Path(__file__).parent
_FIELDS: Final = msgspec.toml.decode((_HERE / "log_fields.toml").read_bytes(), type=dict[str, dict[str, LogField]])
COMMON: Final = _FIELDS["common"]
FIELDS: Final = _FIELDS["events"]
MEANINGS: Final[dict[str, str]] = tomllib.loads((_HERE / "log_events.toml").read_text("utf-8"))
_ROOT: Final = Path(__file__).parents[2]
_LEVELS: Final = {name: name for name in ("debug", "info", "warning", "error", "critical")} | {"exception": "error"}
#: Separate distributions, which have their own logs.
_OTHERS: Final = ("connectors/sdk/", "connectors/litellm/plugin/")

#: Events whose name is not a literal at the call, by module and expression.
_EVENTS: Final = {
    **dict.fromkeys(
        (("connectors/http/unauthenticated_limits.py", name) for name in ("event", "logged")),
        ("wrong_credentials", "request_malformed", "connections_full"),
    ),
    ("connectors/lago/event_store.py", "event"): ("event_store_unknown", "event_store_assumed"),
    ("connectors/operations/background_task.py", "waits"): (
        *("rebilling_waits", "credit_upkeep_waits", "late_calls_wait", "provider_health_waits", "usage_summary_waits"),
        "outgoing_webhooks_wait",
    ),
    ("connectors/telemetry/unbilled_usage.py", "self._event"): ("usage_unpriced", "call_type_unknown"),
    ("streams/runtime/partition_task.py", "event"): ("partition_task_reopened", "partition_task_open_failed"),
    ("streams/state/windows_file.py", "self._full"): ("held_usage_stays_in_memory", "changelog_stays_in_memory"),
}
#: Fields that a call gets from a mapping, by module and expression.
_SPREAD: Final = {
    ("connectors/billing/lago_webhooks.py", "fields"): (
        *("lago_id", "status", "payment_status", "invoice_type", "number", "currency", "total_amount_cents"),
    ),
    ("connectors/cli/running.py", "did_you_mean"): ("did_you_mean",),
    ("connectors/http/unauthenticated_limits.py", "more"): ("error",),
    ("connectors/kafka/startup.py", "cause"): ("reason", "detail"),
    ("connectors/lago/event_store.py", "more"): ("store",),
    ("connectors/postgres/projection.py", "doubled"): ("bridge", "job", "copy"),
    ("connectors/processes/server.py", "served.ports"): ("webhooks", "api"),
    ("connectors/telemetry/minute_summary.py", "fields"): (
        *("calls_counted", "counted_usd", "calls_sealed", "sealed_usd", "events_delivered", "delivered_usd"),
        *("events_put_off", "events_failed"),
    ),
    ("connectors/telemetry/unbilled_usage.py", "{self._field: name, 'calls': count}"): ("model", "call_type", "calls"),
    ("streams/agents/organization_lanes.py", "place"): ("organization", "topic", "partition"),
    ("streams/agents/projector.py", "self._place()"): ("topic", "partition"),
    ("streams/delivery/lago_port.py", "self.log_fields"): ("address",),
    ("streams/runtime/partition_task.py", "place"): ("topic", "partition"),
    ("streams/runtime/unreadable.py", "place"): ("partition", "offset"),
}

_INTRODUCTION: Final = """\
# Logs

<!-- Written by `python -m connectors.telemetry.logs_page`; change the call of the logger, or connectors/telemetry/log_fields.toml or log_events.toml. -->

Every process writes one JSON object a line to stderr (`LOG_FORMAT=console`: text for people). Normal traffic logs nothing but `billed_last_minute`, once a minute. Secrets
are masked, and no line holds a prompt, an answer or a body.

Lines of libraries, such as aiokafka, have the common fields only, and their `event` is a sentence. Of many equal lines a few pass, and `log_lines_suppressed` counts the
others.

A field that is **stable** keeps its name and meaning, or the [changelog](../CHANGELOG.md) says what replaces it; so do the names of events. Other fields may change with a
release. Alarms need no logs: they are made of [metrics](metrics.md).

`trace_id` and `span_id` are there if [traces](tracing.md) are on and the line belongs to a recorded span: a webhook request, or a post to Lago.
"""


class LogCall(NamedTuple):
    """A call of a logger: one event, its level and its fields, in the module `path`."""

    path: str
    event: str
    level: str
    fields: tuple[str, ...]


def logs_page() -> str:
    """Return the text of docs/logs.md: the common fields, all fields of events, and the events.

    Raises:
        KeyError: a call has a name that is neither a text nor in the tables above, or a logger's method is not called under
            its own name; or a field or an event has no meaning, or a
            meaning has no field or event.
    """
    calls = list(log_calls())
    used = {name for call in calls for name in call.fields}
    if odd := used ^ FIELDS.keys():
        raise KeyError(*sorted(odd))
    events: dict[str, tuple[set[str], dict[str, None]]] = {}
    for call in calls:
        levels, fields = events.setdefault(call.event, (set(), {}))
        levels.add(call.level)
        fields.update(dict.fromkeys(call.fields))
    if odd := events.keys() ^ MEANINGS.keys():
        raise KeyError(*sorted(odd))
    lines = [_INTRODUCTION.rstrip("\n"), "", "## Fields of every line", "", *_table(COMMON)]
    lines += ["", "## Fields of events", "", *_table(FIELDS)]
    lines += ["", "## Events", "", "| event | level | means, and what to do | fields |", "|---|---|---|---|"]
    for event, (levels, fields) in sorted(events.items()):
        named = ", ".join(f"`{name}`" for name in sorted(fields))
        lines.append(f"| `{event}` | {', '.join(sorted(levels))} | {MEANINGS[event]} | {named} |")
    return "\n".join(lines) + "\n"


@cache
def log_calls() -> tuple[LogCall, ...]:
    """Return every call of a structlog logger in the source of the product."""
    found: list[LogCall] = []
    for folder in ("schemas", "streams", "connectors"):
        for file in sorted((_ROOT / folder).rglob("*.py")):
            path = file.relative_to(_ROOT).as_posix()
            if not path.startswith(_OTHERS):
                found += _calls_of(path, ast.parse(file.read_text("utf-8")))
    return tuple(found)


def _calls_of(path: str, tree: ast.Module) -> Iterator[LogCall]:
    loggers = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("structlog.get_logger(")
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    methods = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in loggers
    ]
    calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for method in methods:
        if method not in calls:
            raise KeyError(path, ast.unparse(method), "a logger's method is called under its own name")
        node = calls[method]
        levels, named = _levels_of(method.attr, node.args)
        events = (str(named.value),) if isinstance(named, ast.Constant) else _EVENTS[path, ast.unparse(named)]
        fields: list[str] = []
        for keyword in node.keywords:
            if keyword.arg is None:
                fields += _SPREAD[path, ast.unparse(keyword.value)]
            elif keyword.arg != "exc_info":  # becomes `exception`
                fields.append(keyword.arg)
        for event in events:
            for level in levels:
                yield LogCall(path, event, level, tuple(fields))


def _levels_of(method: str, arguments: list[ast.expr]) -> tuple[list[str], ast.expr]:
    """Return the levels and the name of a call; the first argument of `log` is the level."""
    if method != "log":
        return [_LEVELS[method]], arguments[0]
    constants = (node.attr for node in ast.walk(arguments[0]) if isinstance(node, ast.Attribute))
    if not (levels := [_LEVELS[name.lower()] for name in constants if name.isupper()]):
        raise KeyError(ast.unparse(arguments[0]), "the level of `log` is written at the call")
    return levels, arguments[1]


def _table(fields: dict[str, LogField]) -> Iterator[str]:
    yield "| field | type | meaning | example | stable |"
    yield "|---|---|---|---|---|"
    for name, field in fields.items():
        example = field.example if isinstance(field.example, str) else json.dumps(field.example)
        yield f"| `{name}` | {field.kind} | {field.meaning} | `{example}` | {'yes' if field.stable else ''} |"


if __name__ == "__main__":
    print(logs_page(), end="")  # noqa: T201  # this is what it is for
