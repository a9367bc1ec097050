"""The main guarantee: with any processes killed, frozen or disconnected while calls arrive, every cent is billed once."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom

import pytest

from tests.faults.plan import Kind
from tests.faults.run import Report, run


@pytest.mark.faults
@pytest.mark.kafka
async def test_every_cent_is_billed_once_with_any_kills_freezes_and_disconnections(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], figures: Callable[..., None]
) -> None:
    """Sixty seconds at 300 calls/s through HTTP; FAULT_SEED repeats a plan of faults."""
    seed = int(os.environ.get("FAULT_SEED") or SystemRandom().randrange(1, 1_000_000))
    begun = time.monotonic()

    def say(line: str) -> None:
        with capfd.disabled():
            print(line, file=sys.stderr, flush=True)  # of a worker of a parallel run, too

    say("")
    report = await run(seed, os.environ, tmp_path, say=say, forked=True)  # `make soak` starts a new process for each
    for line in (*report.summary(), f"{report.line()}, {time.monotonic() - begun:.0f} s in all"):
        say(line)
    figures(**figures_of(report))
    assert not report.problems, report.story()


def figures_of(report: Report) -> dict[str, int | float | str]:
    """Return the figures for the fault matrix: how often each kind of fault really happened, and what was billed."""
    done = Counter(fault.kind.value for fault in report.done) + Counter(report.fired)
    ingress = sum(1 for fault in report.done if fault.kind is Kind.KILL and fault.target == "ingress")
    kinds = {kind.name.lower(): done[kind.value] for kind in Kind if kind is not Kind.KILL}
    api = sum(1 for fault in report.done if fault.kind is Kind.KILL and fault.target == "api")
    killed = {"killed_ingress": ingress, "killed_api": api, "killed_workers": done[Kind.KILL.value] - ingress - api}
    sent = {"seed": report.seed, "calls": report.calls, "usd": report.usd, "metered": report.metered}
    return sent | {"drained_s": report.drain_s} | kinds | killed
