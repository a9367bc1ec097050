"""Reads the log of a process that may be writing it."""

import json
from pathlib import Path
from typing import Any


def log_lines(log: Path) -> list[dict[str, Any]]:
    """Return the whole lines that are JSON. The last line may not be whole yet, and other programs write other lines."""
    whole, _, _ = log.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
