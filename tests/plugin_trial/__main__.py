"""`make plugin-trial`: proxies with the plugin are killed under load, and each call that was answered is billed once; then the
latency that the plugin adds. With `--endpoints` instead what happens before a call: at each kind of endpoint, and what was decided.

The last lines begin with `BILLED ONCE` or `MISMATCH`, and `LATENCY`, or with `DECIDED`; the exit code is 0 when all holds.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.plugin_trial.decisions import decided
from tests.plugin_trial.endpoints import try_endpoints
from tests.plugin_trial.kills import killed
from tests.plugin_trial.latency import BOUND_MS, measured
from tests.proxy.proxy import install


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.plugin_trial", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how often a proxy is killed; 0 = not at all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=2000, help="calls for each proxy of the latency; 0 = none")
    parser.add_argument("--answer-after", default="write", choices=("write", "fsync", "none"))
    parser.add_argument(
        "--endpoints", action="store_true", help="each kind of endpoint, own keys, power levels, credit"
    )
    chosen = parser.parse_args()
    install()
    folder = Path(tempfile.mkdtemp(prefix="meterbridge-plugin-"))
    print(f"logs in {folder}", flush=True)
    failed = False
    if chosen.endpoints:
        wrong = asyncio.run(try_endpoints(folder / "endpoints"))[0] + asyncio.run(decided(folder / "decisions"))
        print("\n".join(wrong))
        print(f"{'MISMATCH' if wrong else 'DECIDED'}: before the call")
        return int(bool(wrong))
    if chosen.kills:
        wrong = asyncio.run(killed(folder / "kills", chosen.kills, chosen.seed, chosen.answer_after))
        print("\n".join(wrong))
        print(f"{'MISMATCH' if wrong else 'BILLED ONCE'}: {chosen.kills} kills")
        failed = bool(wrong)
    if chosen.calls:
        added_ms = asyncio.run(measured(folder / "latency", chosen.calls, chosen.answer_after))
        failed = failed or added_ms > BOUND_MS
        print(f"LATENCY p99 {added_ms:+.2f} ms, bound {BOUND_MS} ms")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
