"""The SQL on the page about credits runs unchanged and gives the printed answers."""

import re
from decimal import Decimal
from pathlib import Path

from tests.support.database import migrated_database, rows

PAGE = Path(__file__).parents[2] / "docs" / "credits.md"
#: A statement, and what is printed behind it: rows apart by semicolons, cells by commas.
EXAMPLE = re.compile(r"^(SELECT .*?);\s+-- (.*)$", re.MULTILINE)


def printed(cell: object) -> str:
    match cell:
        case bool():
            return str(cell).lower()
        case Decimal():
            return f"{cell.normalize():f}"
        case _:
            return str(cell)


async def test_every_example_on_the_page_gives_the_printed_answer(postgres_url: str) -> None:
    blocks = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    examples = [found for block in blocks for found in EXAMPLE.findall(block)]
    assert len(examples) == len(lines) > 10
    async with migrated_database(postgres_url) as url:
        for statement, answer in examples:
            found = "; ".join(", ".join(map(printed, row)) for row in await rows(url, statement))
            assert (statement, found) == (statement, answer.strip())
