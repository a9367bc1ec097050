"""Generates docs/metrics.md from the metrics: `python -m connectors.telemetry.metrics_page` prints it.

Name, type, labels and meaning come from the metrics themselves. metrics_guide.toml adds when a metric shows a problem.
"""

import tomllib
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from connectors.telemetry.metrics import Metrics

#: The file says when a metric shows a problem.
CHAPTERS: Final[dict[str, dict[str, str]]] = tomllib.loads(
    Path(__file__).with_name("metrics_guide.toml").read_text("utf-8")
)
#: The suffix that a Prometheus type adds to the name in the code.
_ENDINGS: Final = {"counter": "_total", "info": "_info"}

_INTRODUCTION: Final = """\
# Metrics

<!-- Written by `python -m connectors.telemetry.metrics_page`; change the metric, or connectors/telemetry/metrics_guide.toml. -->

Every process serves Prometheus text on `METRICS_PORT` (9090) at `/metrics`. Several worker roles in one command take one port each, counted up:
`meterbridge worker` with four roles needs 9090 to 9093. `meterbridge serve` also serves the same text at `/metrics/prometheus` and `/health/metrics` of
its own ports. **`/metrics` on the port of the webhooks or the api is JSON**, with totals for people: do not point Prometheus at it.

```yaml
scrape_configs:
  - job_name: meterbridge
    static_configs:
      - targets: [ingress:9090, api:9090, "worker:9090", "worker:9091", "worker:9092", "projector:9090"]
```

Every process exports every metric. A metric that another role fills stays zero, so sum over all processes, or take the largest. Labels never hold a customer's
id. Amounts here are floating-point numbers for dashboards; the exact ones are in the ledgers (`meterbridge reconcile`).

Alarms and dashboards are made of these metrics: [alarms.md](alarms.md) has the rules, and a runbook for each. What an alarm means for the money is in
[operations.md](operations.md#when-an-alarm-rings).
"""


def metrics_page() -> str:
    """Return the text of docs/metrics.md: every metric with its type, labels and meaning, and when to worry.

    Raises:
        KeyError: a metric has no place in `CHAPTERS`, or a place there has no metric.
    """
    known = _described()
    lines = [_INTRODUCTION.rstrip("\n")]
    for chapter, guide in CHAPTERS.items():
        lines += [
            "",
            f"## {chapter}",
            "",
            "| metric | type | labels | meaning | when to worry |",
            "|---|---|---|---|---|",
        ]
        for name, worry in guide.items():
            kind, labels, meaning = known.pop(name)
            shown = ", ".join(f"`{label}`" for label in labels)
            lines.append(f"| `{name}` | {kind} | {shown} | {meaning} | {worry} |")
    if known:
        raise KeyError(*known)
    return "\n".join(lines) + "\n"


def _described() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Return type, labels and meaning of each metric, by the name that a scraper sees."""
    registry = Metrics(CollectorRegistry(), "").registry
    described = {}
    for collector in list(registry._collector_to_names):  # noqa: SLF001  # type: ignore[attr-defined]  # no public list
        for family in collector.collect():
            # A metric without children shows no label, so the library's own list is asked first.
            seen = {label: None for sample in family.samples for label in sample.labels if family.type != "histogram"}
            labels = tuple(getattr(collector, "_labelnames", ())) or tuple(seen)
            name = family.name + _ENDINGS.get(family.type, "")
            described[name] = (family.type, labels, family.documentation)
    return described


if __name__ == "__main__":
    print(metrics_page(), end="")  # noqa: T201  # this is what it is for
