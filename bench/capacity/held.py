"""What held windows cost: memory in a ledger, and bytes in the changelog."""

import os
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from bench.capacity.process_cost import cost_of
from schemas.ledger import HELD_LENGTH_US, Position, Window
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes
from streams.state.changelog import records_of

_NOW_US = 1_750_000_000_000_000
_COST = Decimal("0.001234567891")


def windows(count: int) -> Iterator[Window]:
    """Windows of one call each, of customers without a mapping."""
    for number in range(count):
        start_us = _NOW_US + number // 100 * HELD_LENGTH_US
        moments = (start_us, HELD_LENGTH_US, start_us, start_us)
        who = str(uuid.UUID(int=number))
        yield Window(
            *(number, number, who, "end_user", "", "", "unmapped", "gpt-4o", "openai", (), *moments, 1),
            tokens_input=1000,
            tokens_output=200,
            total_tokens=1200,
            cost=_COST,
        )


def measured(count: int) -> dict[str, Any]:
    """One row: bytes of memory and of the changelog, a window."""
    ledger, before = LedgerState(Position()), cost_of(os.getpid()).pss
    for window in windows(count):
        ledger.put(window, _NOW_US)
    grown = cost_of(os.getpid()).pss - before
    records = records_of(Changes(Position(), dict(ledger.windows.items())))
    stored = sum(len(key) + len(value or b"") for key, value in records)
    return {"windows": count, "memory": round(grown / count), "changelog": round(stored / count)}
