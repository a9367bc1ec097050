"""A ledger is compared with the group's offset, which its transactions write, too."""

import pytest
from aiokafka import TopicPartition

from schemas.errors import TopicProblem
from schemas.ledger import Position
from streams.runtime.offsets import PartitionOffsets
from streams.state.ledger import check_complete, is_behind

RAW = TopicPartition("raw", 3)


def offsets(committed: int | None) -> PartitionOffsets:
    return PartitionOffsets(0, 100, committed, 4)


@pytest.mark.parametrize(
    ("committed", "behind"),
    [(None, False), (0, False), (69, False), (70, False), (71, True), (100, True), (500, True)],
)
def test_only_a_higher_offset_of_the_group_shows_that_transactions_are_missing(
    committed: int | None, behind: bool
) -> None:
    """A lower or missing offset is that of a group whose offsets expired or were changed: the ledger is right."""
    assert is_behind(offsets(committed), Position(next=70)) is behind


@pytest.mark.parametrize("committed", [None, 0])
def test_a_new_ledger_is_complete(committed: int | None) -> None:
    """`recover` writes the offset 0 before it begins the ledger."""
    assert not is_behind(offsets(committed), Position())


def test_the_halt_says_both_numbers() -> None:
    with pytest.raises(
        TopicProblem,
        match=r"ledger_behind: raw-3: the group's offset is 71, the ledger's.* 70: `meterbridge ledger rebuild`",
    ):
        check_complete(RAW, offsets(71), Position(next=70))
