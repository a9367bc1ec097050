"""The set of remembered identities: none is lost, none is added, and each takes few bytes."""

from decimal import Decimal
from hashlib import blake2b

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streams.core.metering.dedupe_set import SeenIds
from streams.core.metering.known_identities import (
    COSTLESS,
    NEVER,
    SETTLED,
    UNTOLD,
    fingerprint,
    pack_identities,
    untold,
)

TAGS = st.sampled_from([UNTOLD, COSTLESS, SETTLED, 31_337, 65_535])


def identity(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=16).digest()


class AgainstADict(RuleBasedStateMachine):
    """The set and a Python dict get the same operations and give the same members, tags and hours."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SeenIds()
        self.model: dict[int, tuple[int, int]] = {}
        self.hour = 495_000
        self.dropped = 495_000

    @rule(numbers=st.lists(st.integers(0, 3000), max_size=400, unique=True), tag=TAGS)
    def add(self, numbers: list[int], tag: int) -> None:
        new = [number for number in numbers if number not in self.model]
        self.table.add(pack_identities({identity(number): tag for number in new}), self.hour)
        self.model.update(dict.fromkeys(new, (tag, self.hour)))

    @rule(numbers=st.lists(st.integers(0, 3000), max_size=100, unique=True), tag=TAGS)
    def put(self, numbers: list[int], tag: int) -> None:
        """Existing members get another tag and the current hour; new ones are added."""
        self.table.put(pack_identities({identity(number): tag for number in numbers}), self.hour)
        self.model.update(dict.fromkeys(numbers, (tag, self.hour)))

    @rule(hours=st.integers(1, 30))
    def time_passes(self, hours: int) -> None:
        self.hour += hours

    @rule(back=st.integers(0, 24))
    def forget(self, back: int) -> None:
        until = max(self.dropped, self.hour - back)
        self.table.drop_before(until, self.dropped)
        self.dropped = until
        self.model = {number: known for number, known in self.model.items() if known[1] >= until}

    @invariant()
    def same_members(self) -> None:
        numbers = range(0, 3100, 7)
        ids = [identity(n) for n in numbers]
        assert self.table.tags(ids) == [self.model.get(n, (NEVER, 0))[0] for n in numbers]
        assert self.table.contains(ids) == [n in self.model for n in numbers]
        assert len(self.table) == len(self.model)


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=25, stateful_step_count=20)


def test_an_identity_takes_at_most_32_bytes_at_a_million() -> None:
    table = SeenIds()
    for start in range(0, 1_000_000, 5_000):
        table.add(b"".join(identity(n) for n in range(start, start + 5_000)), start // 50_000)
        assert start < 50_000 or table.nbytes / len(table) <= 32
    assert len(table) == 1_000_000


def test_a_fingerprint_depends_only_on_the_amount_and_never_changes() -> None:
    """It is stored in the changelog: another Python must be able to read it."""
    amounts = ["0", "0.000145000000", "0.02", "1", "87654.000000000000"]
    assert [fingerprint(Decimal(amount)) for amount in amounts] == [2, 18655, 32770, 3, 22122]
    assert fingerprint(Decimal("0.0200")) == fingerprint(Decimal("0.02"))
    assert all(SETTLED <= fingerprint(Decimal(number).scaleb(-7)) <= 65_535 for number in range(2000))


def test_identities_in_an_older_releases_format_are_known_without_their_last_bytes() -> None:
    table = SeenIds()
    table.add(untold(b"".join(identity(n) for n in range(100))), 5)
    assert table.tags([identity(n) for n in range(101)]) == [UNTOLD] * 100 + [NEVER]
