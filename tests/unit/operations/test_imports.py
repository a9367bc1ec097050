"""How an import processes its rows: in order for one key, continuing after bad rows, and repeatable from the start."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel

from connectors.operations.imports import CHANGED, CREATED, UNCHANGED, Import, RowsWarning
from connectors.operations.row_files import Row
from schemas.errors import Rejected, Unavailable


class Line(BaseModel):
    """A row of this test: its key, its duration, and its outcome."""

    of: str
    value: int
    turns: int = 0
    wrong: str = ""


class Shelf:
    """Keeps the last value of each name."""

    model = Line

    def __init__(self) -> None:
        self.all: dict[str, int] = {}
        self.away = 0
        self.under_way = self.most = 0

    def key(self, row: Line) -> str:
        return row.of

    async def warnings(self) -> list[RowsWarning]:
        return []

    async def take(self, row: Line) -> str:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range(row.turns):
                await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        if row.wrong:
            raise Rejected(row.wrong, "in words")
        before = self.all.get(row.of)
        self.all[row.of] = row.value
        return CREATED if before is None else UNCHANGED if before == row.value else CHANGED


async def rows(*lines: Line | str) -> AsyncIterator[Row]:
    for number, line in enumerate(lines, 1):
        yield Row(number, b"", line) if isinstance(line, str) else Row(number, line.model_dump_json().encode())


async def test_rows_of_one_key_are_processed_in_order_for_any_durations() -> None:
    """A mapping that occurs twice ends as its last row says."""
    shelf = Shelf()
    lines = [Line(of="a", value=number, turns=20 - number) for number in range(20)]
    await Import(shelf, 10).run(rows(*lines))
    assert shelf.all == {"a": 19}


async def test_rows_of_several_keys_are_processed_concurrently_up_to_a_limit() -> None:
    shelf = Shelf()
    done = await Import(shelf, 4).run(rows(*(Line(of=str(number), value=1, turns=5) for number in range(40))))
    assert (shelf.most, done.created) == (4, 40)


async def test_every_row_is_counted_by_its_outcome_and_refused_rows_are_ordered_by_line() -> None:
    result: list[int] = []
    lines = [
        Line(of="a", value=1, wrong="not_so", turns=9),
        "bad_row",
        Line(of="b", value=1),
        Line(of="b", value=1),
        Line(of="b", value=2),
    ]
    done = (await Import(Shelf(), 10, on_progress=result.append).run(rows(*lines))).as_object()
    counts = {name: done[name] for name in ("read", "created", "changed", "unchanged", "refused")}
    assert counts == {"read": 5, "created": 1, "changed": 1, "unchanged": 1, "refused": 2}
    assert [(error["line"], error["reason"]) for error in done["errors"]] == [(1, "not_so"), (2, "bad_row")]
    assert sum(result) == 5


async def test_a_short_outage_is_waited_for_and_a_long_one_ends_the_import() -> None:
    shelf = Shelf()
    shelf.away = 1
    assert (await Import(shelf, 1, patience_s=5).run(rows(Line(of="a", value=1)))).created == 1
    shelf.away = 10**6
    job = Import(shelf, 1)
    with pytest.raises(Unavailable, match="away"):
        await job.run(rows(Line(of="b", value=1), Line(of="c", value=1)))
    assert job.done.created == 0


async def test_rows_read_before_the_file_turned_out_damaged_are_finished() -> None:
    async def cut() -> AsyncIterator[Row]:
        async for row in rows(Line(of="a", value=1, turns=50)):
            yield row
        raise Rejected("too_large")

    shelf = Shelf()
    with pytest.raises(Rejected, match="too_large"):
        await Import(shelf, 4).run(cut())
    assert shelf.all == {"a": 1}


async def test_a_bug_ends_the_import_and_does_not_count_as_a_refused_row() -> None:
    class Broken(Shelf):
        async def take(self, row: Line) -> str:
            raise ZeroDivisionError(row.of)

    with pytest.raises(ZeroDivisionError):
        await Import(Broken(), 4).run(rows(Line(of="a", value=1), Line(of="b", value=1)))


async def test_a_row_with_a_misspelt_member_is_refused_and_the_others_are_taken() -> None:
    shelf = Shelf()

    async def lines() -> AsyncIterator[Row]:
        yield Row(1, b'{"of": "a", "value": 1, "wrongg": "x", "other": 2}')
        yield Row(2, b'{"of": "b", "value": 1, "other": 2}')

    done = await Import(shelf, 1).run(lines())
    sentence = "the column wrongg is unknown: did you mean wrong? Rename it, or remove it"
    assert (shelf.all, done.errors) == ({"b": 1}, [{"line": 1, "reason": "invalid_fields", "detail": sentence}])
