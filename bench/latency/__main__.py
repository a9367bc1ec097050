"""`python -m bench.latency`: how long calls, requests and releases take; it writes bench/results/latency.json.

Three measurements, one after the other, on a Kafka of its own and with a Lago sandbox: `webhook`, a call from its webhook
to Lago with `WINDOW_SECONDS=0`; `api`, the API's own time in addition to Lago's, and its own tables while usage arrives;
`held`, from a mapping until Lago has the usage that waited for it. Times are of the clock: a machine with other work
makes them longer, and `load` in the results, the average of five minutes, says how busy it was.
"""

import argparse
import asyncio
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.capacity.results import Rows, record
from bench.latency import api, held, webhook
from tests.support.kafka import start_kafka
from tests.support.topic_prefix import own_topic_prefix

RESULTS = Path(__file__).parents[1] / "results" / "latency.json"
SUBJECTS = ("webhook", "api", "held")
_TITLES = {
    "webhook_to_lago": "webhook to Lago, a call an event",
    "api_over_lago": "API, in addition to Lago's time",
    "own_tables": "API, own tables, while usage arrives",
    "mapping_to_lago": "mapping to Lago, held usage",
}


def main() -> None:
    """Measure, print a table, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="length of each measurement")
    parser.add_argument("--only", choices=SUBJECTS, action="append", help="one measurement; may be given again")
    asked = parser.parse_args()
    found: dict[str, Rows] = {}
    broker = start_kafka(os.environ)
    try:
        for subject in asked.only or SUBJECTS:
            found |= _measured(subject, broker.bootstrap, asked.seconds)
    finally:
        broker.stop()
    for name, rows in found.items():
        record(name, [{**row, **_where()} for row in rows], RESULTS)
    _show(found, asked.seconds)


def _measured(subject: str, bootstrap: str, seconds: float) -> Mapping[str, Rows]:
    with own_topic_prefix(bootstrap) as prefix, tempfile.TemporaryDirectory(prefix="meterbridge-latency-") as folder:
        place = bootstrap, prefix, Path(folder), seconds
        if subject == "webhook":
            return {"webhook_to_lago": asyncio.run(webhook.measured(*place))}
        if subject == "held":
            return {"mapping_to_lago": asyncio.run(held.measured(*place))}
        return asyncio.run(api.measured(*place))


def _where() -> dict[str, Any]:
    """The machine of a row: one that measured a part of the rows may differ from that of the others."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "load": round(os.getloadavg()[1], 1),
    }


def _show(found: Mapping[str, Rows], seconds: float) -> None:
    table = Table(title=f"latency, {seconds:.0f} s each", title_justify="left")
    table.add_column("measured")
    for heading in ("a second", "number", "p50, ms", "p95 or p99, ms", "longest, ms"):
        table.add_column(heading, justify="right")
    for name, rows in found.items():
        for row in rows:
            table.add_row(*_cells(_TITLES[name], row))
    Console(width=None if Console().is_terminal else 120).print(table)


def _cells(title: str, row: Mapping[str, Any]) -> Sequence[str]:
    what = f"{title}: {row['request']}" if "request" in row else title
    high = next(f"{name.removesuffix('_ms')} {row[name]}" for name in ("p95_ms", "p99_ms") if name in row)
    return what, str(row["per_second"]), str(row["calls"]), str(row["p50_ms"]), high, str(row["longest_ms"])


if __name__ == "__main__":
    main()
