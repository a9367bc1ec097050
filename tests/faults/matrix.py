"""The fault matrix: the injected faults, and the conditions that must hold afterwards.

`python -m tests.faults.matrix` writes docs/reliability.md from it and from the last run's figures.
"""

import json
import sys
from pathlib import Path

from tests.faults.matrix_rows import growth, kafka, lago, postgres, processes, records, upgrades
from tests.faults.matrix_rows import input as bad_input
from tests.faults.matrix_rows.meaning import RULES
from tests.faults.matrix_rows.row import Row
from tests.faults.page import page
from tests.faults.results import RESULTS

CHAPTERS: dict[str, tuple[Row, ...]] = {
    "Our own processes": processes.ROWS,
    "Kafka": kafka.ROWS,
    "Lago": lago.ROWS,
    "Records": records.ROWS,
    "Postgres": postgres.ROWS,
    "Input": bad_input.ROWS,
    "Upgrades": upgrades.ROWS,
    "Growth and loss": growth.ROWS,
}
ROWS: tuple[Row, ...] = tuple(row for rows in CHAPTERS.values() for row in rows)

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def written() -> str:
    """Return the generated page."""
    return page(CHAPTERS, json.loads(RESULTS.read_text()), RULES)


if __name__ == "__main__":
    PAGE.write_text(written())
    print(f"{len(ROWS)} rows in {PAGE}", file=sys.stderr)
