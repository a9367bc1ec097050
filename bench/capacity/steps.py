"""Memory of the steps that counted identities: a snapshot of very many small chunks, restored without Kafka.

Run as a program, it measures in a process of its own, and prints the row.
"""

import json
import os
import subprocess
import sys
from typing import Any

from bench.capacity.process_cost import cost_of
from bench.contest import environment
from schemas.ledger import SEEN_PREFIX, Position
from streams.core.metering.identity import IDENTITY_BYTES
from streams.core.metering.ledger_state import LedgerState
from streams.state.changelog import Snapshot, identity_key, restore

_HOURS, _NOW, _RECORDS = 24, 480_000, 20_000


def measured(steps: int, a_step: int) -> dict[str, Any]:
    """One row: bytes of memory a step, without the table of identities; after the restore, and the most."""
    command = [sys.executable, "-m", "bench.capacity.steps", str(steps), str(a_step)]
    found: dict[str, Any] = json.loads(subprocess.check_output(command, env=environment(), text=True))
    return found


def main(steps: int, a_step: int) -> None:
    """The changelog is taken as it is read, 20,000 records at a time."""
    before, ledger, snapshot = cost_of(os.getpid()), LedgerState(Position()), Snapshot(0, complete=True)
    for begin in range(0, steps, _RECORDS):
        numbers = range(begin, min(begin + _RECORDS, steps))
        keys = (identity_key(SEEN_PREFIX, _NOW + _HOURS * number // steps, a_step * number) for number in numbers)
        snapshot.take({key: os.urandom(a_step * IDENTITY_BYTES) for key in keys})
    restore(ledger, snapshot, 0)
    del snapshot
    after = cost_of(os.getpid())
    sizes = {"memory": after.pss - before.pss, "most": after.peak - before.peak}
    each = {name: round((size - ledger.seen.nbytes) / steps) for name, size in sizes.items()}
    print(json.dumps({"steps": steps, "a_step": a_step, **each}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
