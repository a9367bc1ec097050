"""Names of the extra group values; the window stores them, so that a changed `WINDOW_GROUP_BY` misreads no window."""

from collections.abc import Iterable

import msgspec

from schemas.ledger import Window
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes

copy = msgspec.structs.replace


def names_of(window: Window, group_by: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the window's group values, one for each value.

    Windows of releases before the names were stored take the policy's where their number fits. Otherwise the names are
    `group_1` and so on: the meaning of the values is unknown, and the money must not wait for it.
    """
    if window.group_names or not window.group:
        return window.group_names
    if len(group_by) == len(window.group):
        return group_by
    return tuple(f"group_{number}" for number in range(1, len(window.group) + 1))


def unnamed(ledger: LedgerState) -> list[Window]:
    """Windows that a release before the names were stored has written."""
    return [window for window in ledger.windows.values() if window.group and not window.group_names]


def named(ledger: LedgerState, windows: Iterable[Window], group_by: tuple[str, ...]) -> Changes:
    """Give `windows` their names, before a changed setting could give wrong ones."""
    changes = Changes(ledger.position)
    for window in windows:
        changes.windows[window.first] = copy(window, group_names=names_of(window, group_by))
    return changes
