"""A ledger without Kafka: its steps are written to a changelog of a dictionary, and its books may be read back from it."""

from dataclasses import dataclass, field

from schemas.ledger import Position
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes, apply, held_after
from streams.state.changelog import image_from, records_of, restore


@dataclass
class OwnChangelog:
    """Books, and the last value of each key that was ever written."""

    books: LedgerState = field(default_factory=lambda: LedgerState(Position()))
    values: dict[bytes, bytes | None] = field(default_factory=dict)

    def commit(self, changes: Changes, now_us: int) -> None:
        """A step of a ledger; its books must add up, and its position tells how many windows are held."""
        changes.position.held = held_after(self.books, changes)
        self.values.update(records_of(changes))
        apply(self.books, changes, now_us)
        verify(self.books)
        assert self.books.position.held == self.books.held_windows()

    def restored(self, now_us: int = 0) -> LedgerState:
        """The books as another worker finds them."""
        books = LedgerState(Position())
        restore(books, image_from(0, self.values), now_us)
        return books

    def taken_over(self, now_us: int) -> None:
        """Another worker has the partition from here on."""
        self.books = self.restored(now_us)
        verify(self.books)


def image_of(books: LedgerState) -> tuple[object, ...]:
    """All of the books that is a function of the changelog, comparable."""
    return books.windows, books.index, set(books.open), books.held, books.metered, books.jobs, books.position
