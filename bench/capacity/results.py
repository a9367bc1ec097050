"""bench/results/capacity.json: a list of rows for each measured subject."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[1] / "results" / "capacity.json"

Rows = Sequence[Mapping[str, Any]]


def recorded(path: Path = PATH) -> dict[str, Rows]:
    """The rows by subject: `customers`, `identities`, `flow`, `where`."""
    return json.loads(path.read_text()) if path.exists() else {}


def record(subject: str, rows: Rows, path: Path = PATH) -> None:
    """Replace the rows of one subject."""
    found = {**recorded(path), subject: [dict(row) for row in rows]}
    path.write_text(json.dumps(found, indent=1) + "\n")
