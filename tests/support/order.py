"""The order of tests in a parallel run.

`--dist worksteal` gives each worker one stretch of the list, and idle workers take from the ends of the others' stretches. Files with a
test of the marker `long` are in front of the stretches: a long test that begins last runs alone, while the other workers have nothing
left to do.

The tests of the marker `faults` are few and take up to two minutes: the longest begin first (`--dist loadgroup`, which gives a worker
the next ones when it has nearly done its own).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Protocol, TypeVar

import pytest

#: What a test takes of which nothing is known, seconds.
_UNKNOWN_S = 30.0


class Item(Protocol):
    """A collected test; `nodeid` begins with the path of its file."""

    @property
    def nodeid(self) -> str: ...


T = TypeVar("T", bound=Item)


def spread(items: Sequence[T], workers: int, is_long: Callable[[T], bool]) -> list[T]:
    """Return all of `items`, in `workers` stretches of about the same length, those of files with a long test first.

    The tests of one file stay together and in order, because they share fixtures.

    Args:
        is_long: whether a test has the marker `long`.
    """
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.nodeid.partition("::")[0])]
    stretches: list[list[T]] = [[] for _ in range(workers)]
    for file in sorted(files, key=lambda file: not any(map(is_long, file))):
        min(stretches, key=len).extend(file)
    return [item for stretch in stretches for item in stretch]


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
