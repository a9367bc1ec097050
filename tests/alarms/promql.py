"""Parses PromQL as far as the rules and panels of this repository need it: which metrics and labels an expression
names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from prometheus_client import CollectorRegistry

from connectors.telemetry.metrics import Metrics

_SELECTOR = re.compile(r"(?<![\w:$.])(?P<name>[a-zA-Z_:][\w:]*)\s*(?:\{(?P<labels>[^}]*)\})?(?P<range>\s*\[[^\]]+\])?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPED = re.compile(r"\b(?:by|on|group_left|without|ignoring)\s*\(([^)]*)\)")
_OFFSET = re.compile(r"\boffset\s+\w+")
_WORDS = frozenset(
    ["and", "or", "unless", "by", "on", "bool", "without", "ignoring", "group_left", "group_right", "inf", "nan"]
)
#: Labels that Prometheus itself adds, and the buckets of a histogram.
ADDED = frozenset({"job", "instance", "le"})
_PARTS = ("_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class Selector:
    """One metric of an expression: its name, its matchers as (label, operator, value), and whether it has a range."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    ranged: bool

    def takes(self, labels: dict[str, str]) -> bool:
        """Whether a series with these labels matches."""
        return all(_meets(labels.get(name, ""), operator, value) for name, operator, value in self.matchers)


def _meets(text: str, operator: str, value: str) -> bool:
    same = text == value if operator in ("=", "!=") else re.fullmatch(value, text) is not None
    return same == (operator in ("=", "=~"))


def selectors(expression: str) -> Iterator[Selector]:
    """Every metric that an expression names."""
    text = _OFFSET.sub("", _GROUPED.sub("", expression))
    for found in _SELECTOR.finditer(text):
        name, behind = found["name"], text[found.end() :].lstrip()
        is_function = behind.startswith("(") and found["labels"] is None
        if name in _WORDS or is_function:
            continue
        yield Selector(name, tuple(_MATCHER.findall(found["labels"] or "")), found["range"] is not None)


def grouped_by(expression: str) -> set[str]:
    """The labels that an expression groups or joins by."""
    return {label.strip() for listed in _GROUPED.findall(expression) for label in listed.split(",") if label.strip()}


@cache
def exported() -> dict[str, list[dict[str, str]]]:
    """The labels of each series that a new process exports, by the metric's name; the suffixed series of histograms
    count as metrics.
    """
    series: dict[str, list[dict[str, str]]] = {}
    metrics = Metrics(CollectorRegistry(), "1.2.3")
    metrics.requested_of("eu")  # as every process does for each further Lago organisation
    registry = metrics.registry
    for collector in list(registry._collector_to_names):  # type: ignore[attr-defined]  # no public list
        for family in collector.collect():
            for sample in family.samples:
                series.setdefault(sample.name, []).append(dict(sample.labels))
    return series


@cache
def labels() -> dict[str, frozenset[str]]:
    """The label names of each metric, also of one without series yet."""
    named: dict[str, frozenset[str]] = {}
    registry = Metrics(CollectorRegistry(), "1.2.3").registry
    for collector, names in registry._collector_to_names.items():  # type: ignore[attr-defined]
        declared = set(getattr(collector, "_labelnames", ()))
        for name in names:
            seen = {label for one in exported().get(name, ()) for label in one}
            named[name] = frozenset(declared | seen)
    for name, series in exported().items():  # of a collector that declares nothing
        named.setdefault(name, frozenset(label for one in series for label in one))
    return named


def family(name: str) -> str:
    """The metric that a suffixed series of a histogram belongs to."""
    for part in _PARTS:
        if name.endswith(part) and name.removesuffix(part) in labels():
            return name.removesuffix(part)
    return name
