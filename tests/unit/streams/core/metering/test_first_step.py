"""The first step of a ledger that was given identities forgets none of them.

`ledger rebuild` writes a position that has forgotten no hour yet, and identities beside it.
"""

import pytest
from msgspec.structs import replace

from schemas.ledger import SEEN_PREFIX, Position
from schemas.moments import HOUR_US
from streams.core.metering.batch_identities import HOUR_MS, BatchIdentities
from streams.core.metering.known_identities import SETTLED, pack_identities
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes, apply
from streams.state.changelog import Snapshot, records_of, restore
from tests.support.calls import NOON

HOUR, RETENTION_HOURS = NOON // HOUR_US, 24
COUNTED = [bytes([number]) * 16 for number in range(3)]


def given(hour: int) -> LedgerState:
    """A ledger with identities under `hour`, and with the clock `HOUR`."""
    ledger = LedgerState(Position(clock_ms=HOUR * HOUR_MS))
    ledger.seen.add(pack_identities(dict.fromkeys(COUNTED, SETTLED)), hour)
    ledger.seen_blocks[hour] = {-1: SEEN_PREFIX}
    return ledger


def called(hour: int) -> bytes:
    """The identity of a call of this hour; its last two bytes are a tag."""
    return hour.to_bytes(8, "big") * 2


def step(ledger: LedgerState) -> Changes:
    changes = Changes(replace(ledger.position))
    BatchIdentities(ledger, []).write(changes, 0, RETENTION_HOURS * HOUR_US, HOUR)
    assert changes.position.dropped_hour == HOUR - RETENTION_HOURS
    return changes


@pytest.mark.parametrize("age", [0, 1, RETENTION_HOURS])
def test_the_identities_of_the_dedupe_retention_stay(age: int) -> None:
    ledger = given(HOUR - age)
    apply(ledger, step(ledger), NOON)
    assert ledger.seen.contains(COUNTED) == [True] * 3


@pytest.mark.parametrize("age", [RETENTION_HOURS + 1, 200])
def test_older_identities_are_forgotten(age: int) -> None:
    ledger = given(HOUR - age)
    apply(ledger, step(ledger), NOON)
    assert ledger.seen.contains(COUNTED) == [False] * 3


def test_a_kept_ledger_reads_the_first_step_of_another_owner_and_forgets_none() -> None:
    ledger, other = given(HOUR), given(HOUR)
    tail = Snapshot(1)
    tail.take(dict(records_of(step(other))))
    restore(ledger, tail, NOON)
    assert ledger.position.dropped_hour == HOUR - RETENTION_HOURS
    assert ledger.seen.contains(COUNTED) == [True] * 3


@pytest.mark.parametrize("days", [1, 12])
def test_identities_stay_while_the_clock_of_a_rebuilt_ledger_catches_up_with_them(days: int) -> None:
    """It reads again from the first call that was held, which may be days old. The hours of the table repeat after 251."""
    ledger = given(HOUR)
    for hour in range(HOUR - days * 24, HOUR + 1):
        changes = Changes(replace(ledger.position, clock_ms=hour * HOUR_MS))
        again = called(hour)
        identities = BatchIdentities(ledger, [])
        identities.new[again] = SETTLED
        identities.write(changes, hour, RETENTION_HOURS * HOUR_US, hour)
        apply(ledger, changes, NOON)
        assert ledger.seen.contains([*COUNTED, again]) == [True] * 4
    assert ledger.seen.contains([called(HOUR - days * 24)]) == [days == 1]
