"""A ledger without Kafka: its steps are written to a changelog of a dictionary, and its books may be read back from it."""

from dataclasses import dataclass, field

from schemas.ledger import POSITION_KEY, SEEN_PREFIX, WINDOW_PREFIX, Position
from streams.changelog import Image, records_of, restore
from streams.core.books import Books, verify
from streams.core.changes import Changes, apply


@dataclass
class OwnChangelog:
    """Books, and the last value of each key that was ever written."""

    books: Books = field(default_factory=lambda: Books(Position()))
    values: dict[bytes, bytes | None] = field(default_factory=dict)

    def commit(self, changes: Changes, now_us: int) -> None:
        """A step of a ledger; its books must add up."""
        self.values.update(records_of(changes))
        apply(self.books, changes, now_us)
        verify(self.books)

    def restored(self, now_us: int = 0) -> Books:
        """The books as another worker finds them."""
        image = Image(0, self.values.get(POSITION_KEY))
        for key, value in self.values.items():
            if key[:1] == WINDOW_PREFIX:
                image.windows[int.from_bytes(key[1:9], "big")] = value
            elif key[:1] == SEEN_PREFIX:
                image.seen[int.from_bytes(key[1:9], "big"), int.from_bytes(key[9:17], "big")] = value
        books = Books(Position())
        restore(books, image, now_us)
        return books

    def taken_over(self, now_us: int) -> None:
        """Another worker has the partition from here on."""
        self.books = self.restored(now_us)
        verify(self.books)


def image_of(books: Books) -> tuple[object, ...]:
    """All of the books that is a function of the changelog, comparable; `v` is lowered by reading back."""
    return books.windows, books.index, set(books.open), books.held, books.metered, books.position.counters
