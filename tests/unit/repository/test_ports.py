"""tests/support/ports.py: which ports each test worker uses."""

from itertools import combinations

from tests.support.ports import RUN, WORKERS, stretch

#: Linux gives clients ports from here on (net.ipv4.ip_local_port_range).
EPHEMERAL = 32_768


def test_no_two_workers_of_two_runs_use_the_same_ports() -> None:
    runs = ("not", "faults")
    found = [stretch({RUN: run, "PYTEST_XDIST_WORKER": f"gw{n}"}) for run in runs for n in range(WORKERS)]
    assert all(one.stop <= other.start or other.stop <= one.start for one, other in combinations(found, 2))
    assert all(one.start >= 1024 and one.stop <= EPHEMERAL for one in found)
    assert stretch({}) in found
