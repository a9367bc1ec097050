"""A ledger without Kafka: its steps are written to a changelog in a dictionary, and the ledger can be read back from
it.
"""

from dataclasses import dataclass, field

from schemas.ledger import Position
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes, apply, held_after
from streams.state.changelog import records_of, restore
from tests.support.snapshots import snapshot_from


@dataclass
class OwnChangelog:
    """A ledger, and the last value of each key that was ever written."""

    ledger: LedgerState = field(default_factory=lambda: LedgerState(Position()))
    values: dict[bytes, bytes | None] = field(default_factory=dict)

    def commit(self, changes: Changes, now_us: int) -> None:
        """A step of a ledger; it must add up, and its position shows how many windows are held."""
        changes.position.held = held_after(self.ledger, changes)
        self.values.update(records_of(changes))
        apply(self.ledger, changes, now_us)
        verify(self.ledger)
        assert self.ledger.position.held == self.ledger.held_windows()

    def restored(self, now_us: int = 0) -> LedgerState:
        """Return the ledger as another worker finds it."""
        ledger = LedgerState(Position())
        restore(ledger, snapshot_from(0, self.values), now_us)
        return ledger

    def taken_over(self, now_us: int) -> None:
        """From now on another worker has the partition."""
        self.ledger = self.restored(now_us)
        verify(self.ledger)


def image_of(ledger: LedgerState) -> tuple[object, ...]:
    """Return all state of the ledger that follows from the changelog, in a comparable form."""
    return ledger.windows, ledger.index, set(ledger.open), ledger.held, ledger.metered, ledger.jobs, ledger.position
