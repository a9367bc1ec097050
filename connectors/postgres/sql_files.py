"""Reads the SQL files of this folder, and what the server says of a statement."""

from pathlib import Path


def sql(name: str) -> str:
    """Return the statement in the file `name`."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def rows_in(tag: str) -> int:
    """Return the number of rows in the server's answer, `INSERT 0 n` or `DELETE n`."""
    return int(tag.rpartition(" ")[2])
