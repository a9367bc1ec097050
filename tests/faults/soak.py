"""`python -m tests.faults.soak --minutes N [--seed S] [--rate R]`: runs the exactness test for any number of minutes.

The last line is `EXACT calls=.. usd=.. faults=.. seed=..` or begins with `MISMATCH`; the exit code says the same.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from tests.faults.run import run


def main() -> int:
    """Return 0 when every cent was billed once."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    arguments.add_argument("--minutes", type=int, default=10, help="of load; a new draw of all faults each minute")
    arguments.add_argument("--seed", type=int, default=SystemRandom().randrange(1, 1_000_000))
    arguments.add_argument("--rate", type=int, default=300, help="calls a second")
    chosen = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="meterbridge-soak-"))
    report = asyncio.run(run(chosen.seed, os.environ, folder, minutes=chosen.minutes, rate=chosen.rate))
    print("\n".join(report.summary()))
    if report.problems:
        print(report.story())
    print(report.line())
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
