"""Gives windows of earlier releases the names of their extra group values."""

from collections.abc import Iterable

import msgspec

from schemas.ledger import Window
from streams.core.metering.group_names import names_of
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes

copy = msgspec.structs.replace


def unnamed(ledger: LedgerState) -> list[Window]:
    """Return the windows without names, which an early release wrote."""
    return [window for window in ledger.windows.values() if window.group and not window.group_names]


def with_group_names(ledger: LedgerState, windows: Iterable[Window], group_by: tuple[str, ...]) -> Changes:
    """Add the names to `windows`, before a changed setting could cause wrong names."""
    changes = Changes(ledger.position)
    for window in windows:
        changes.windows[window.first] = copy(window, group_names=names_of(window, group_by))
    return changes
