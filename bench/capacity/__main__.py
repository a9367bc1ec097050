"""`python -m bench.capacity`: measures how the product grows, and writes bench/results/capacity.json.

`--write` makes docs/capacity.md and its pictures of what was measured; `--calls-per-second N` prints what N calls a second need.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from bench.capacity import customers, flow, held, identities, page, steps
from bench.capacity.broker import WeighedKafka
from bench.capacity.figures import figures
from bench.capacity.model import Demand, plan
from bench.capacity.results import record, recorded

CUSTOMERS = (100, 10_000, 100_000, 1_000_000)
#: (identities, partitions, identities that a step adds)
IDENTITIES = (
    *((count, 1, 1000) for count in (500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000)),
    (10_000_000, 10, 1000),
    (1_000_000, 10, 200),
    (100_000, 4, 20),
    (100_000, 4, 2),
)
#: (steps, identities that a step adds)
STEPS = ((250_000, 2), (1_000_000, 2), (1_000_000, 20))
HELD = 100_000
SUBJECTS = ("held", "steps", "customers", "identities", "flow")


def main() -> None:
    """Measure, write, or calculate."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("--only", choices=SUBJECTS, action="append", help="one subject; may be given again")
    parser.add_argument("--write", action="store_true", help="measure nothing; write the page and its pictures")
    parser.add_argument("--calls-per-second", type=float, help="measure nothing; print what so many calls need")
    asked = parser.parse_args()
    if asked.calls_per_second is not None:
        print(page.described(plan(Demand(asked.calls_per_second), figures(recorded()))))
    elif asked.write:
        page.write(recorded())
    else:
        _measure(asked.only or SUBJECTS)


def _measure(subjects: Sequence[str]) -> None:
    broker = WeighedKafka()
    try:
        for subject in subjects:
            rows = []
            for row in _rows(subject, broker):
                print(json.dumps(row), file=sys.stderr, flush=True)
                rows.append(row)
                record(subject, rows)
        cores, version = os.cpu_count(), platform.python_version()
        record(
            "where",
            [{"cores": cores, "python": version, "machine": platform.machine(), "load": round(os.getloadavg()[2], 1)}],
        )
    finally:
        broker.stop()


def _rows(subject: str, broker: WeighedKafka) -> Iterator[dict[str, Any]]:
    if subject == "held":
        yield held.measured(HELD)
    elif subject == "steps":
        for several in STEPS:
            yield steps.measured(*several)
    elif subject == "customers":
        for count in CUSTOMERS:
            yield from customers.measured(broker, count)
    elif subject == "identities":
        for one in IDENTITIES:
            yield identities.measured(broker, *one)
    else:
        yield from flow.measured(broker)


if __name__ == "__main__":
    main()
