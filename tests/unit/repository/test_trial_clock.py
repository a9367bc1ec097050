"""The clock of `make trial`: a process that follows it is a week ahead, and its waits are not longer."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.proxy.clock import Clock, compiler
from tests.support.eventually import PATIENCE

#: A wait by a lock, a wait by a sleep, a wait until a time of day, and the time of day.
PROGRAM = """
import ctypes, threading, time
begun = time.monotonic()
threading.Event().wait(0.2)
time.sleep(0.2)
libc, semaphore, until = ctypes.CDLL(None), ctypes.create_string_buffer(64), time.time() + 0.2
moment = (ctypes.c_long * 2)(int(until), int(until % 1 * 1e9))
assert libc.sem_init(semaphore, 0, 0) == 0 and libc.sem_timedwait(semaphore, moment) == -1
print(time.time(), time.monotonic() - begun)
"""


@pytest.fixture
def clock() -> Iterator[Clock]:
    found = compiler()
    if found is None:
        pytest.skip("no C compiler: `make trial` goes without the week here, and says so")
    created = Clock(found)
    yield created
    created.remove()


@pytest.mark.parametrize("days", [0, 7])
def test_a_process_is_the_set_number_of_days_ahead_and_waits_normally(clock: Clock, days: int) -> None:
    clock.forward(days)
    ahead_s, before, begun = days * 86_400, time.time(), time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | dict(clock.environ),
        capture_output=True,
        text=True,
        check=True,
        timeout=20 * PATIENCE,
    ).stdout.split()
    assert before + ahead_s - 1 <= float(said[0]) <= time.time() + ahead_s + 1
    assert 0.55 <= float(said[1]) <= time.monotonic() - begun
