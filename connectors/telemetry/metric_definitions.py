"""Declares a metric in a class: its name, type, meaning, and the label values that begin at zero."""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any, NamedTuple, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Definition(NamedTuple):
    """A metric of a class; `labels` has the values of each label that are exported as zero from the start."""

    make: Callable[..., Any]
    name: str
    meaning: str
    labels: Mapping[str, Iterable[object]]
    options: Mapping[str, Any]

    def made_in(self, registry: CollectorRegistry) -> Any:
        """Return the metric. `increase()` misses the first sample of a series, so the known series begin at zero."""
        metric = self.make(self.name, self.meaning, tuple(self.labels), registry=registry, **self.options)
        for values in product(*self.labels.values()) if self.labels else ():
            metric.labels(*values)
        return metric


def counter(name: str, meaning: str, **labels: Iterable[object]) -> Counter:
    """Declare a counter."""
    return cast("Counter", Definition(Counter, name, meaning, labels, {}))


def gauge(name: str, meaning: str, **labels: Iterable[object]) -> Gauge:
    """Declare a gauge."""
    return cast("Gauge", Definition(Gauge, name, meaning, labels, {}))


def histogram(name: str, meaning: str, buckets: tuple[float, ...], **labels: Iterable[object]) -> Histogram:
    """Declare a histogram with these upper bounds."""
    return cast("Histogram", Definition(Histogram, name, meaning, labels, {"buckets": buckets}))


def make_all(owner: object, registry: CollectorRegistry) -> None:
    """Replace each definition of the owner's class and its bases by a metric in `registry`."""
    for of_class in reversed(type(owner).__mro__):
        for name, defined in vars(of_class).items():
            if isinstance(defined, Definition):
                setattr(owner, name, defined.made_in(registry))
