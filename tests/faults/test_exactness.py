"""The law of the product: whatever is killed, frozen or cut while calls arrive, every cent is billed once."""

import os
import time
from pathlib import Path
from random import SystemRandom

import pytest

from tests.faults.run import run


@pytest.mark.faults
@pytest.mark.kafka
async def test_every_cent_is_billed_once_whatever_is_killed_frozen_or_cut(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Sixty seconds at 300 calls/s through HTTP; FAULT_SEED repeats a plan of faults."""
    seed = int(os.environ.get("FAULT_SEED") or SystemRandom().randrange(1, 1_000_000))
    begun = time.monotonic()

    def say(line: str) -> None:
        with capfd.disabled():
            print(line, flush=True)

    say("")
    report = await run(seed, os.environ, tmp_path, say=say)
    for line in (*report.summary(), f"{report.line()}, {time.monotonic() - begun:.0f} s in all"):
        say(line)
    assert not report.problems, report.story()
