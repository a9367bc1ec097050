"""Reads the SQL files of this folder."""

from pathlib import Path


def sql(name: str) -> str:
    """Return the statement in the file `name`."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
