"""tests/support/order.py: in which order and on which worker tests run."""

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.support.order import longest_first, spread


@dataclass(frozen=True)
class _Item:
    nodeid: str


def _is_long(item: _Item) -> bool:
    return item.nodeid.endswith("_9")


_FOLDERS = ("unit", "integration", "e2e", "contract")
_FILES = st.lists(st.tuples(st.sampled_from(_FOLDERS), st.integers(1, 11)), max_size=30)


def _items(files: list[tuple[str, int]]) -> list[_Item]:
    return [
        _Item(f"tests/{folder}/test_{number}.py::test_{test}")
        for number, (folder, tests) in enumerate(files)
        for test in range(tests)
    ]


@given(_FILES, st.integers(1, 6))
def test_each_test_occurs_once_and_the_tests_of_a_file_stay_together(
    files: list[tuple[str, int]], workers: int
) -> None:
    items = _items(files)
    order = spread(items, workers, _is_long)
    assert sorted(item.nodeid for item in order) == sorted(item.nodeid for item in items)
    places = {item.nodeid: place for place, item in enumerate(order)}
    for before, after in pairwise(items):
        file = before.nodeid.partition("::")[0]
        if file == after.nodeid.partition("::")[0]:
            assert places[after.nodeid] == places[before.nodeid] + 1


def test_each_worker_has_about_as_many_tests() -> None:
    items = _items([("unit", 10)] * 12)
    order = spread(items, 4, _is_long)
    assert [order[place].nodeid.rpartition("_")[2] for place in (0, 30, 60, 90)] == ["0"] * 4


def test_files_with_a_long_test_begin_first_each_on_a_worker_of_its_own() -> None:
    items = _items([("integration", 5), ("integration", 10), ("e2e", 4), ("integration", 10), ("integration", 3)])
    first, second = (order := spread(items, 2, _is_long))[0], order[15]
    assert {first.nodeid, second.nodeid} == {
        "tests/integration/test_1.py::test_0",
        "tests/integration/test_3.py::test_0",
    }


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
