"""`make trial`: jobs that are polled through a real LiteLLM proxy are billed once, with any restarts in between.

The last line begins with `BILLED ONCE` or `MISMATCH`, and says whether a week lay between the halves; the exit code says
the same. Numbers as arguments try these configurations alone.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.proxy.clock import Clock, compiler
from tests.proxy.proxy import Configuration, install
from tests.proxy.trial import BATCH_POLLS, RESPONSE_POLLS, VIDEO_POLLS, run_trial
from tests.support.kafka import broker_kind

_CONFIGURATIONS = (
    Configuration(
        "plain ids, every poll priced, and LiteLLM's poller beside them", plain_ids=True, polled_by_litellm=True
    ),
    Configuration("ids that change, LiteLLM's poller alone prices", free_reads=True, polled_by_litellm=True),
    Configuration("ids that change, no database", keep_response=True, database=False),
    Configuration("ids that change, responses left out, no database", database=False),
)


def clock_of() -> Clock | None:
    """A clock that can be moved forward; None, with the reason printed, if a process could not follow it."""
    found = compiler()
    if found is None:
        print("without the week: it needs Linux and a C compiler (Debian: apt-get install gcc libc6-dev)")
    elif os.environ.get("DATABASE_URL") or broker_kind(os.environ) != "maven":
        print("without the week: Kafka and Postgres must be this machine's own (Maven, no DATABASE_URL)")
    else:
        return Clock(found)
    return None


def main() -> int:
    """0 if each job was billed once with every configuration."""
    install()
    wanted, problems, apart = sys.argv[1:], [], "a restart"
    for number, configuration in enumerate(_CONFIGURATIONS, 1):
        if wanted and str(number) not in wanted:
            continue
        clock = clock_of()
        apart = "a restart of everything and a week" if clock else "a restart"
        folder = Path(tempfile.mkdtemp(prefix="meterbridge-trial-"))
        print(f"{number}. {configuration.name}: logs in {folder}", flush=True)
        try:
            wrong = asyncio.run(run_trial(folder, clock, configuration))
        finally:
            if clock:
                clock.remove()
        problems += [f"{number}. {configuration.name}: {problem}" for problem in wrong]
    print("\n".join(problems))
    jobs = f"batch polled {BATCH_POLLS} times, response {RESPONSE_POLLS}, video {VIDEO_POLLS}, {apart} between"
    print(f"MISMATCH {jobs}" if problems else f"BILLED ONCE {jobs}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
