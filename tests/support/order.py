"""The order of tests in a parallel run: those that wait for brokers and windows begin first, on every worker.

`--dist worksteal` gives each worker one stretch of the list, and idle workers take from the ends of the others' stretches. In the order
of the folders one worker would have nearly all tests that wait, at the end of the run, while half of the processor is idle.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import PurePath
from typing import Protocol, TypeVar

#: Folders below tests/ whose tests mostly wait.
_WAITING = frozenset({"integration", "e2e"})


class Item(Protocol):
    """A collected test; `nodeid` begins with the path of its file."""

    @property
    def nodeid(self) -> str: ...


T = TypeVar("T", bound=Item)


def interleaved(items: Sequence[T], workers: int) -> list[T]:
    """All of `items`, in `workers` stretches of about the same length, each with its share of the waiting files in front.

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
