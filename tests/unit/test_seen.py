"""Remembered identities: none lost, none invented, few bytes each."""

from hashlib import blake2b

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streams.core.seen import SeenIds


def identity(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=16).digest()


class AgainstASet(RuleBasedStateMachine):
    """The table and a Python dict, told the same, answer the same."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SeenIds()
        self.model: dict[int, int] = {}
        self.hour = 495_000
        self.dropped = 495_000

    @rule(numbers=st.lists(st.integers(0, 3000), max_size=400, unique=True))
    def add(self, numbers: list[int]) -> None:
        new = [number for number in numbers if number not in self.model]
        self.table.add(b"".join(map(identity, new)), self.hour)
        self.model.update(dict.fromkeys(new, self.hour))

    @rule(hours=st.integers(1, 30))
    def time_passes(self, hours: int) -> None:
        self.hour += hours

    @rule(back=st.integers(0, 24))
    def forget(self, back: int) -> None:
        until = max(self.dropped, self.hour - back)
        self.table.drop_before(until, self.dropped)
        self.dropped = until
        self.model = {number: hour for number, hour in self.model.items() if hour >= until}

    @invariant()
    def same_members(self) -> None:
        numbers = range(0, 3100, 7)
        assert self.table.contains([identity(n) for n in numbers]) == [n in self.model for n in numbers]
        assert len(self.table) == len(self.model)


TestAgainstASet = AgainstASet.TestCase
TestAgainstASet.settings = settings(max_examples=25, stateful_step_count=20)


def test_an_identity_takes_at_most_32_bytes_at_a_million() -> None:
    table = SeenIds()
    for start in range(0, 1_000_000, 5_000):
        table.add(b"".join(identity(n) for n in range(start, start + 5_000)), start // 50_000)
        assert start < 50_000 or table.nbytes / len(table) <= 32
    assert len(table) == 1_000_000
