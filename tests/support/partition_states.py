"""The states of a running meter's partitions."""

from collections.abc import Mapping
from typing import Any

from streams.core.metering.ledger_state import LedgerState


def states_of(tasks: Mapping[Any, Any]) -> list[LedgerState]:
    """Return the states of the partitions whose ledgers are open now: one may be opened again after a rebalance."""
    return [state for task in tasks.values() if (state := task.work._ledger.state) is not None]


def is_all_sealed(tasks: Mapping[Any, Any]) -> bool:
    """Return whether every ledger is open, and no window in it but held ones."""
    states = states_of(tasks)
    return len(states) == len(tasks) and not any(state.open for state in states)
