"""`meterbridge` on a machine whose clock is wrong: `python -m tests.support.wrong_clock SECONDS serve ...`."""

import sys
import time

_now_ns = time.time_ns


def set_clock(ahead_s: float) -> None:
    """Move the wall clock of this process; the monotonic clock is not changed."""
    ahead_ns = int(ahead_s * 1e9)
    time.time_ns = lambda: _now_ns() + ahead_ns
    time.time = lambda: time.time_ns() / 1e9


if __name__ == "__main__":
    set_clock(float(sys.argv[1]))
    sys.argv[1:2] = []
    from connectors.cli.main import main

    main()
