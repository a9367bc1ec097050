"""What a window is grouped by, by name: kept in the window, so that a changed `WINDOW_GROUP_BY` misreads none."""

from collections.abc import Iterable

import msgspec

from schemas.ledger import Window
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes

copy = msgspec.structs.replace


def names_of(window: Window, group_by: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the window's group values, as many as there are.

    Windows of releases before the names were kept take the policy's where they fit; else the names are `group_1` and
    so on: what the values were is not known, and no money waits for that.
    """
    if window.group_names or not window.group:
        return window.group_names
    if len(group_by) == len(window.group):
        return group_by
    return tuple(f"group_{number}" for number in range(1, len(window.group) + 1))


def unnamed(books: LedgerState) -> list[Window]:
    """Windows of releases before the names were kept."""
    return [window for window in books.windows.values() if window.group and not window.group_names]


def named(books: LedgerState, windows: Iterable[Window], group_by: tuple[str, ...]) -> Changes:
    """Give them their names, before another setting could."""
    changes = Changes(books.position)
    for window in windows:
        changes.windows[window.first] = copy(window, group_names=names_of(window, group_by))
    return changes
