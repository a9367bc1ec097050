"""The order of tests in a parallel run: those that wait for brokers and windows begin first, on every worker.

The tests of the marker `faults` are few and take up to two minutes: the longest begin first, so that no worker is left alone with
one in the end (`--dist loadgroup`, which gives a worker the next ones when it has nearly done its own).

`--dist worksteal` gives each worker one stretch of the list, and idle workers take from the ends of the others' stretches. In the order
of the folders one worker would have nearly all tests that wait, at the end of the run, while half of the processor is idle.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import PurePath
from typing import Protocol, TypeVar

import pytest

#: Folders below tests/ whose tests mostly wait.
_WAITING = frozenset({"integration", "e2e"})
#: What a test takes of which nothing is known, seconds.
_UNKNOWN_S = 30.0


class Item(Protocol):
    """A collected test; `nodeid` begins with the path of its file."""

    @property
    def nodeid(self) -> str: ...


T = TypeVar("T", bound=Item)


def interleaved(items: Sequence[T], workers: int) -> list[T]:
    """Return all of `items`, in `workers` stretches of about the same length, each with its share of the waiting files
    in front.

    The tests of one file stay together and in order, because they share fixtures.
    """
    waiting: list[list[T]] = [[] for _ in range(workers)]
    others: list[T] = []
    for path, tests in groupby(items, key=lambda item: item.nodeid.partition("::")[0]):
        if _WAITING.isdisjoint(PurePath(path).parts):
            others += tests
        else:
            min(waiting, key=len).extend(tests)
    order: list[T] = []
    for place, stretch in enumerate(waiting):
        left = workers - place
        room = (len(items) - len(order)) // left - len(stretch)
        filled = len(others) if left == 1 else max(0, min(room, len(others)))
        order += [*stretch, *others[:filled]]
        del others[:filled]
    return order


def longest_first(items: Sequence[T], seconds: Mapping[str, float]) -> list[T]:
    """Return all of `items`, those that take longest first. `seconds`: of one case, by the test's path below tests/ and
    its name.

    Tests of one group of pytest-xdist run one after the other on one worker, and count as one.
    """
    took = Counter[str]()
    for item in items:
        name = item.nodeid.removeprefix("tests/").partition("[")[0].partition("@")[0]
        took[_group(item)] += seconds.get(name, _UNKNOWN_S)  # type: ignore[assignment]
    return sorted(items, key=lambda item: -took[_group(item)])


def refuse_unapplied_groups(items: Iterable[pytest.Item]) -> None:
    """Check that pytest-xdist has applied its groups: otherwise each worker makes the fixtures of a group again, unseen.

    Raises:
        pytest.UsageError: a test of a group has no `@` in its id.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") and _group(item) == item.nodeid:
            raise pytest.UsageError(f"this pytest ignores the groups of pytest-xdist: {item.nodeid}")


def _group(item: Item) -> str:
    """Return the test's group, which pytest-xdist writes after the case as `@` and the group's name; a test without a
    group is its own group.
    """
    case, group = item.nodeid.rfind("]"), item.nodeid.rfind("@")
    return item.nodeid[group:] if group > case else item.nodeid
