"""The identities counted inside the dedupe retention: a hash table of packed 16-byte keys.

A Python set of bytes takes about 90 bytes an identity. This table takes 17 bytes divided by the load, at most 29. One
call looks up or inserts a whole batch, so the cost is that of numpy and not of the interpreter.

14 of the 16 bytes belong to the identity. The other 2 are a tag with facts about the call
(streams/core/metering/known_identities.py, ADR 0017).
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from streams.core.metering.known_identities import NEVER

#: A key as one element, so that an assignment writes the whole key or nothing.
_WHOLE = np.dtype("V16")
#: The second half of a key, little-endian: six bytes of the identity, then the tag.
_HALF = np.dtype("<u8")
_OF_IDENTITY = np.uint64((1 << 48) - 1)
_TAG_SHIFT = np.uint64(48)
_MAX_LOAD = 0.85
_GROWTH = 1.4
_FIRST_SIZE = 1021
#: Number of keys that are inserted in one step. Its arrays fit into the processor's cache and into reused memory. A
#: whole ledger in one step takes a quarter more time.
_AT_ONCE = 32_768
#: An hour is stored modulo this number in one byte; 0 marks an empty slot.
_HOURS = 251
#: Number of consecutive hours that can be distinguished.
HOURS_APART = _HOURS - 3


class SeenIds:
    """Identities, each with its tag and the hour in which it was counted; bytes 14 and 15 of a key are the tag.

    Open addressing with double hashing. The capacity is prime, so every step length visits all slots.
    """

    def __init__(self) -> None:
        self._size = 0
        self._allocate(_FIRST_SIZE)

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Size of the table in memory, bytes."""
        return self._keys.nbytes + self._hours.nbytes

    def contains(self, ids: Sequence[bytes]) -> list[bool]:
        """Return for each identity whether it is in the set."""
        return [tag != NEVER for tag in self.tags(ids)]

    def tags(self, ids: Sequence[bytes]) -> list[int]:
        """Return the tag of each identity; `NEVER` if it is not in the set."""
        tags_found = np.full(len(ids), NEVER, dtype=np.int64)
        if self._size and ids:
            slots = self._find(_keys_of(b"".join(ids)))
            there = slots >= 0
            tags_found[there] = self._keys[slots[there], 1] >> _TAG_SHIFT
        return tags_found.tolist()

    def expect(self, more: int) -> None:
        """Allocate space for `more` identities in one step."""
        if self._size + more > self._capacity * _MAX_LOAD:
            self._rebuild(self._hours != 0, self._size + more)

    def add(self, packed: bytes, hour: int) -> None:
        """Add identities, packed one after the other, under `hour`. None of them may be in the set."""
        keys = np.frombuffer(packed, dtype=_HALF).reshape(-1, 2)
        self.expect(len(keys))
        self._insert(keys, np.full(len(keys), hour % _HOURS + 1, dtype=np.uint8))

    def put(self, packed: bytes, hour: int) -> None:
        """Set tag and hour of identities, packed as for `add`; missing ones are added."""
        keys = np.frombuffer(packed, dtype=_HALF).reshape(-1, 2)
        slots = self._find(_masked(keys))
        there = slots >= 0
        self._keys[slots[there], 1] = keys[there, 1]
        self._hours[slots[there]] = hour % _HOURS + 1
        if not there.all():
            self.add(keys[~there].tobytes(), hour)

    def drop_before(self, hour: int, oldest: int) -> None:
        """Forget the identities of the hours `[oldest, hour)`, at most of the last 250 of them."""
        hours = range(max(oldest, hour - _HOURS + 1), hour)
        self._forget([old % _HOURS + 1 for old in hours])

    def drop(self, hours: Iterable[int], except_of: Iterable[int]) -> None:
        """Forget the identities of `hours`. An hour that cannot be distinguished from one of `except_of` stays."""
        marks = {hour % _HOURS + 1 for hour in hours} - {hour % _HOURS + 1 for hour in except_of}
        self._forget(sorted(marks))

    def _forget(self, marks: Sequence[int]) -> None:
        gone = np.isin(self._hours, marks)
        if gone.any():
            self._rebuild((self._hours != 0) & ~gone, 0)

    def _allocate(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys: NDArray[np.uint64] = np.zeros((capacity, 2), dtype=_HALF)
        self._hours: NDArray[np.uint8] = np.zeros(capacity, dtype=np.uint8)

    def _find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the slot of each key without its tag; -1 if it is not in the set."""
        positions = np.full(len(keys), -1, dtype=np.int64)
        slots, steps = self._probe(keys)
        waiting = np.arange(len(keys))
        while len(waiting):
            taken = self._hours[slots] != 0
            there, searched = self._keys[slots], keys[waiting]
            equal = taken & (there[:, 0] == searched[:, 0]) & (there[:, 1] & _OF_IDENTITY == searched[:, 1])
            positions[waiting[equal]] = slots[equal]
            onward = taken & ~equal
            waiting, steps = waiting[onward], steps[onward]
            slots = (slots[onward] + steps) % self._capacity
        return positions

    def _probe(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        slots = (keys[:, 0] % np.uint64(self._capacity)).astype(np.int64)
        steps = ((keys[:, 1] & _OF_IDENTITY) % np.uint64(self._capacity - 1)).astype(np.int64) + 1
        return slots, steps

    def _rebuild(self, keep: NDArray[np.bool_], expected: int) -> None:
        keys, hours = self._keys[keep], self._hours[keep]
        capacity = max(expected, len(keys), _FIRST_SIZE // 2) / _MAX_LOAD
        self._allocate(_prime_from(int(max(capacity * 1.01, min(self._capacity * _GROWTH, capacity * _GROWTH)))))
        self._size = 0
        self._insert(keys, hours)

    def _insert(self, keys: NDArray[np.uint64], hours: NDArray[np.uint8]) -> None:
        for begin in range(0, len(keys), _AT_ONCE):
            self._place(keys[begin : begin + _AT_ONCE], hours[begin : begin + _AT_ONCE])

    def _place(self, keys: NDArray[np.uint64], hours: NDArray[np.uint8]) -> None:
        self._size += len(keys)
        slots, steps = self._probe(keys)
        table, hours_at = self._keys.view(_WHOLE)[:, 0], self._hours
        while len(keys):
            free = np.flatnonzero(hours_at[slots] == 0)
            targets, mine = slots[free], keys[free]
            # If several keys compete for one slot, the last write wins. Reading the slot shows which key it was.
            table[targets] = mine.view(_WHOLE)[:, 0]
            held = self._keys[targets]
            placed = free[(held[:, 0] == mine[:, 0]) & (held[:, 1] == mine[:, 1])]
            hours_at[slots[placed]] = hours[placed]
            left = np.ones(len(keys), dtype=bool)
            left[placed] = False
            keys, hours, steps = keys[left], hours[left], steps[left]
            slots = (slots[left] + steps) % self._capacity


def _keys_of(packed: bytes) -> NDArray[np.uint64]:
    """Convert packed identities to keys without a tag."""
    return _masked(np.frombuffer(packed, dtype=_HALF).reshape(-1, 2))


def _masked(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    masked = keys.copy()
    masked[:, 1] &= _OF_IDENTITY
    return masked


def _prime_from(number: int) -> int:
    number |= 1
    while any(number % divisor == 0 for divisor in range(3, int(number**0.5) + 1, 2)):
        number += 2
    return number
