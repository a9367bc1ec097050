"""The queries of the dashboards, as Grafana sends them."""

import json
from collections.abc import Iterator

from tests.alarms.rules import ROOT

#: A query that shows only what is not zero may have nothing to show; so may one of what did not happen yet.
_OFTEN_EMPTY = ("> 0", "meterbridge_partition_halted", "meterbridge_fetch_gaps_total", "meterbridge_held_over_bound")


def queries(interval: str) -> Iterator[tuple[str, str, bool]]:
    """The place of each query, the query with this interval, and whether it may have no series."""
    for path in sorted((ROOT / "deploy" / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            for target in panel["targets"]:
                text = target["expr"].replace("$__rate_interval", interval)
                yield f"{path.stem}: {panel['title']}", text, any(word in text for word in _OFTEN_EMPTY)
