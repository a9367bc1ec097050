"""Writes CSV (RFC 4180) in which a spreadsheet runs no cell as a formula.

Clients choose the ids and names in the cells. A cell that begins like a formula gets an apostrophe in front, which
spreadsheets do not show. Source: https://owasp.org/www-community/attacks/CSV_Injection
"""

from collections.abc import Iterable, Sequence
from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_QUOTED: Final = (",", '"', "\n", "\r")


class Exact:
    """A number as text with all its digits. A negative number is not treated as a formula: with an apostrophe it would
    be text, which the sums of a spreadsheet leave out.
    """

    def __init__(self, number: object) -> None:
        self._text = str(number)

    def __str__(self) -> str:
        return self._text


def csv_line(cells: Iterable[object]) -> str:
    """Return one row with its line end. Only text is protected; numbers are written unchanged. None is an empty cell."""
    return ",".join(_cell(cell) for cell in cells) + "\r\n"


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return the text of a header and of the rows."""
    return "".join([csv_line(columns), *(csv_line(row) for row in rows)])


def _cell(cell: object) -> str:
    if cell is None:
        return ""
    text = str(cell)
    if isinstance(cell, str) and text.startswith(_FORMULA):
        text = f"'{text}"
    if any(sign in text for sign in _QUOTED):
        return '"' + text.replace('"', '""') + '"'
    return text
