"""tests/support/order.py: in which order and on which worker tests run."""

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.support.order import interleaved, longest_first


@dataclass(frozen=True)
class _Item:
    nodeid: str


_FOLDERS = ("unit", "integration", "e2e", "contract")
_FILES = st.lists(st.tuples(st.sampled_from(_FOLDERS), st.integers(1, 9)), max_size=30)


def _items(files: list[tuple[str, int]]) -> list[_Item]:
    return [
        _Item(f"tests/{folder}/test_{number}.py::test_{test}")
        for number, (folder, tests) in enumerate(files)
        for test in range(tests)
    ]


@given(_FILES, st.integers(1, 6))
def test_each_test_occurs_once_and_tests_of_a_waiting_file_stay_together(
    files: list[tuple[str, int]], workers: int
) -> None:
    items = _items(files)
    order = interleaved(items, workers)
    assert sorted(item.nodeid for item in order) == sorted(item.nodeid for item in items)
    places = {item.nodeid: place for place, item in enumerate(order)}
    for before, after in pairwise(items):
        file = before.nodeid.partition("::")[0]
        if file == after.nodeid.partition("::")[0] and "/unit/" not in file and "/contract/" not in file:
            assert places[after.nodeid] == places[before.nodeid] + 1


def test_every_worker_starts_with_tests_that_wait() -> None:
    items = _items([("contract", 40), ("unit", 200), ("integration", 10), ("integration", 12), ("e2e", 8), ("e2e", 11)])
    order = interleaved(items, 4)
    share = len(items) // 4
    for worker in range(4):
        begun = order[worker * share + worker]
        assert "/integration/" in begun.nodeid or "/e2e/" in begun.nodeid


def test_the_longest_start_first_and_a_group_counts_as_one() -> None:
    names = ("short", "long", "new", "grouped[a]@g", "grouped[x@y]@g", "short[b]")
    items = [_Item(f"tests/faults/test_1.py::test_{name}") for name in names]
    took = {
        "faults/test_1.py::test_short": 2.0,
        "faults/test_1.py::test_long": 90.0,
        "faults/test_1.py::test_grouped": 25.0,
    }
    result = [item.nodeid.rpartition("_")[2] for item in longest_first(items, took)]
    assert result == ["long", "grouped[a]@g", "grouped[x@y]@g", "new", "short", "short[b]"]
