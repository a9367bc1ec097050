"""Which changes break whom, contract by contract: the differences between a recorded contract and the present one."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from connectors.config.old_names import RENAMED
from tests.contract.compatibility.breaks import Break, Json
from tests.contract.compatibility.http_rules import http_breaks
from tests.contract.compatibility.schema_rules import Side, changes

#: Records that others write, and records that are written and also kept as others wrote them.
_TAKEN: Final = ("Call",)
_BOTH: Final = ("RawRecord",)
_KEEP_RENAMED: Final = (
    "If it was renamed, add both names to connectors/config/old_names.py: a start then says the new name."
)


def topic_breaks(old: Json, new: Json) -> Iterator[Break]:
    """Topics are only added; a new form of a record needs a new topic whose name ends in .v2."""
    for name, was in old["topics"].items():
        subject, now = f"topic {name}", new["topics"].get(name)
        if now is None:
            yield Break(subject, "is gone", "A program that reads it waits for records that never come.")
            continue
        for aspect, effect in _OF_TOPICS.items():
            if was[aspect] != now[aspect]:
                words = (
                    "If only the words are others, change them in the recorded contract, too."
                    if aspect == "key"
                    else ""
                )
                yield Break(f"{subject} {aspect}", f"was {was[aspect]} and is {now[aspect]}", effect, words)
        for header in sorted(set(was["headers"]) - set(now["headers"])):
            yield Break(f"{subject} header {header}", "is gone", "A program that reads the header finds none.")
        if 0 <= now["retention_ms"] < was["retention_ms"] or was["retention_ms"] < 0 <= now["retention_ms"]:
            what = f"is kept for {now['retention_ms']} ms, was {was['retention_ms']}"
            yield Break(f"{subject} retention", what, "A reader that was away for longer misses records.")
    for name, schema in old["schemas"].items():
        now = new["schemas"].get(name)
        if now is None:
            yield Break(
                f"record {name}", "has no schema any more", "A program that checks records by it finds no file."
            )
            continue
        for we_write in (True, False):
            if we_write == (name in _TAKEN) and name not in _BOTH:
                continue
            effect = "A program that reads such records" if we_write else "A program that sends such records"
            for place, what in changes(schema, now, Side(schema, now, we_write), name):
                yield Break(f"record {place}", what, f"{effect} breaks or misreads them.")


_OF_TOPICS: Final = {
    "key": "A reader that joins or counts by the key finds another one, and keys move to other partitions.",
    "value": "A program that reads it cannot decode the records.",
    "partitions": "Keys move to other partitions, and their order with them.",
    "cleanup": "A reader that relies on every record, or on the last of each key, misses records.",
}


def metric_breaks(old: Json, new: Json) -> Iterator[Break]:
    """Metrics and their labels stay; label values that alarm rules use stay, too."""
    for name, was in old.items():
        subject, now = f"metric {name}", new.get(name)
        if now is None:
            yield Break(subject, "is gone", "Dashboards show nothing, and alarms on it never fire again.")
            continue
        if was["type"] != now["type"]:
            what = f"was a {was['type']} and is a {now['type']}"
            yield Break(subject, what, "Queries such as rate() give wrong figures.")
        if sorted(was["labels"]) != sorted(now["labels"]):
            what = f"had the labels {_list(was['labels'])} and has {_list(now['labels'])}"
            yield Break(f"{subject} labels", what, "Queries that group or select by labels find nothing, or double.")
        for label, values in was["values"].items():
            for value in sorted(set(values) - set(now["values"].get(label, values))):
                what = "is gone"
                yield Break(
                    f'{subject}{{{label}="{value}"}}', what, "An alarm that selects this value never fires again."
                )
        for bound in sorted(set(was["buckets"]) - set(now["buckets"]), key=float):
            yield Break(f"{subject} bucket {bound}", "is gone", "A query of this bucket (an SLO) finds nothing.")


def reason_breaks(old: Json, new: Json) -> Iterator[Break]:
    """A code that exists today stays; new codes may be added."""
    for kind, codes in old.items():
        for code in sorted(set(codes) - set(new.get(kind, ()))):
            effect = "Programs, alarms and commands that name it (`dlq list --reason`) find nothing."
            yield Break(f"reason {code} of {kind}", "is gone", effect)


def setting_breaks(old: Json, new: Json, renamed: Mapping[str, str] = RENAMED) -> Iterator[Break]:
    """A value that was valid stays valid, and an unset variable keeps its meaning."""
    for variable, was in old.items():
        subject, now = f"setting {variable}", new.get(variable)
        if now is None:
            if renamed.get(variable) not in new:
                yield Break(
                    subject, "is gone", "A deployment that sets it is started without what it asked for.", _KEEP_RENAMED
                )
            continue
        for place, what in changes(was, now, Side(was, now, we_write=False), variable):
            effect = "A deployment with the value of today does not start, or behaves differently."
            yield Break(f"setting {place}", what, effect)


def command_breaks(old: Json, new: Json) -> Iterator[Break]:
    """A command line that works today works with the next release and does the same."""
    for words, options in old.items():
        now = new.get(words)
        if now is None:
            yield Break(f"command {words}", "is gone", "Scripts and jobs that call it end with code 2.")
            continue
        for name, was in options.items():
            subject, option = f"command {words} {name}", _option(now, was["names"], name)
            if option is None:
                yield Break(subject, "is gone", "Scripts that use it end with code 2.")
                continue
            yield from _option_breaks(subject, was, option)
        for name, option in now.items():
            if option["required"] and _option(options, option["names"], name) is None:
                effect = "Scripts that do not give it end with code 2."
                yield Break(f"command {words} {name}", "is new and must be given", effect)


def _option(options: Json, names: list[str], name: str) -> Json | None:
    """The option that has one of the names; the longest name of an option is the one for scripts."""
    same = (one for one in options.values() if set(one["names"]) & set(names))
    found: Json | None = options.get(name) or next(same, None)
    return found


def _option_breaks(subject: str, was: Json, now: Json) -> Iterator[Break]:
    for gone in sorted(set(was["names"]) - set(now["names"])):
        yield Break(f"{subject} as {gone}", "is gone", "Scripts that use this name end with code 2.")
    if now["required"] and not was["required"]:
        yield Break(subject, "must now be given", "Scripts that do not give it end with code 2.")
    for aspect in ("flag", "many", "type", "place", "default"):
        if was[aspect] != now[aspect]:
            what = f"its {aspect} was {was[aspect]!r} and is {now[aspect]!r}"
            yield Break(f"{subject} {aspect}", what, "The same command line fails, or does something else.")
    for choice in sorted(set(was["choices"] or ()) - set(now["choices"] or was["choices"] or ())):
        yield Break(f"{subject} {choice}", "is no choice any more", "Scripts that use it end with code 2.")


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"


RULES: Final[Mapping[str, Callable[[Any, Any], Iterator[Break]]]] = {
    "topics": topic_breaks,
    "http": http_breaks,
    "metrics": metric_breaks,
    "reasons": reason_breaks,
    "settings": setting_breaks,
    "commands": command_breaks,
}


def breaks_between(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[Break]:
    """Every incompatible change from the recorded contracts to the present ones; each subject has one sentence."""
    found = (one for name, rule in RULES.items() for one in rule(old[name], new[name]))
    return list({(one.subject, one.what): one for one in found}.values())
