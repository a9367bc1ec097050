"""Gives windows of earlier releases the names of their extra group values."""

from collections.abc import Iterable

import msgspec

from schemas.ledger import Window
from streams.core.metering.group_names import names_of
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes

copy = msgspec.structs.replace


def unnamed(ledger: LedgerState) -> list[Window]:
    """Windows that a release before the names were stored has written."""
    return [window for window in ledger.windows.values() if window.group and not window.group_names]


def with_group_names(ledger: LedgerState, windows: Iterable[Window], group_by: tuple[str, ...]) -> Changes:
    """Give `windows` their names, before a changed setting could give wrong ones."""
    changes = Changes(ledger.position)
    for window in windows:
        changes.windows[window.first] = copy(window, group_names=names_of(window, group_by))
    return changes
