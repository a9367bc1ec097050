"""`python -m bench`: every comparison, printed as a table and written to bench/results/latest.json."""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from bench import ingress, memory, meter, projector, recovery
from bench.ground import Ground
from bench.report import Row, show, write
from tests.support.kafka import start_kafka

_RESULTS = Path(__file__).parent / "results" / "latest.json"
_IDENTITIES = 1_000_000

Bench = Callable[[Ground, int, int], list[Row]]
BENCHES: dict[str, Bench] = {
    "meter_flat": meter.flat,
    "meter_slp": meter.slp,
    "ledger_recovery": recovery.ledgers,
    "ingress_single": ingress.single,
    "ingress_array": ingress.array,
    "projector": projector.rows,
    "projector_prepaid": projector.prepaid,
    "memory": lambda _ground, _records, _repeats: memory.per_identity(_IDENTITIES),
}


def main() -> None:
    """Run the requested benches on one broker."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--records", type=int, default=200_000, help="calls a contestant gets")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each contestant; the median counts")
    parser.add_argument("--only", choices=BENCHES, action="append", help="one comparison; may be given again")
    parser.add_argument("--quick", action="store_true", help="a tenth of the records, once")
    parser.add_argument("--add", action="store_true", help="keep the other figures of latest.json")
    asked = parser.parse_args()
    records, repeats = (asked.records // 10, 1) if asked.quick else (asked.records, asked.repeat)
    broker = start_kafka(os.environ, short_lived=False)
    ground = Ground(broker.bootstrap)
    rows: list[Row] = []
    try:
        for name in asked.only or BENCHES:
            print(f"{name} ...", file=sys.stderr, flush=True)
            rows += BENCHES[name](ground, records, repeats)
            ground.clear()
    finally:
        broker.stop()
    cores, version = os.cpu_count(), platform.python_version()
    show(rows, f"{records} calls, {repeats} runs, {cores} cores, Python {version}; ratios above 1: ours is better")
    if asked.add or not asked.only:
        write(rows, _RESULTS, add=asked.add)


if __name__ == "__main__":
    main()
