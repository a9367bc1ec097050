"""Reads CSV (RFC 4180) strictly: values are never guessed from a damaged row, because they may be money.

The caller feeds one line after the other, so a file of any size is read in bounded memory. A damaged row is refused
with its line and a reason, and the other rows are read. If a quote is not closed, all lines after it are refused with
the row, because the text of a cell must never be read as a row.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from connectors.operations.near_names import misspelt_column
from schemas.errors import Rejected

#: The most bytes of one row, with the cells of unknown columns: LiteLLM's exports hold whole conversations.
MAX_RECORD: Final = 32 << 20
#: Reasons why a row is refused.
STRAY_QUOTE, OPEN_QUOTE, SHORT, LONG, NOT_UTF8, TOO_LARGE = (
    "stray_quote",
    "open_quote",
    "short_row",
    "long_row",
    "not_utf8",
    "row_too_large",
)
BAD_CSV: Final = "bad_csv"
DELIMITERS: Final = {",": ",", ";": ";", "|": "|", "tab": "\t", "\t": "\t", "\\t": "\t"}
UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


class CsvRow(NamedTuple):
    """A row, and the number of its first line, from 1.

    Fields:
        cells: the text of each column, not trimmed, without empty cells. A refused row has the cells before the fault.
        wrong: why the row is refused, `""` = it is not; `detail` names the place.
    """

    line: int
    cells: dict[str, str]
    wrong: str = ""
    detail: str = ""


class CsvTable:
    """Reads one file.

    Args:
        columns: the columns to read; None = all. Other cells are skipped.
        delimiter: one of `DELIMITERS`; `""` = a comma.
        examples: columns to name if the header has none of `columns`; `()` = all.
        required: columns without which no row can be taken, each with all its names.
    """

    def __init__(
        self,
        columns: Collection[str] | None = None,
        delimiter: str = "",
        examples: Collection[str] = (),
        required: Collection[tuple[str, ...]] = (),
    ) -> None:
        self._required = required
        self.header: list[str] = []
        self._columns = columns
        self._examples = examples
        self._delimiter_given = bool(delimiter)
        self._delimiter = DELIMITERS[delimiter or ","]
        self._record = _Record(self._delimiter)
        self._begin = 0
        self._size = 0

    def feed(self, number: int, line: bytes) -> Iterator[CsvRow]:
        """Take the next line; return the row that ends with it, or None.

        Raises:
            Rejected: `bad_csv`: the file cannot be read because of its header, its encoding or its delimiter.
        """
        if number == 1:
            line = _checked_start(line)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            yield self._undecodable(number, line, error)
            return
        if not self._begin and not text.strip():
            return
        self._begin = self._begin or number
        self._size += len(line)
        self._record.feed(text)
        if self._record.is_open and self._size <= MAX_RECORD:
            return
        if row := self._ended(number):
            yield row

    def end(self) -> Iterator[CsvRow]:
        """End the file; return the row that is not complete, or None. Raises: Rejected: as `feed`."""
        if self._begin and (row := self._ended(0)):
            yield row
        if not self.header:
            raise Rejected(BAD_CSV, "the file is empty: its first line must name the columns")

    def _ended(self, last: int) -> CsvRow | None:
        begin, record, size = self._begin, self._record, self._size
        self._begin, self._record, self._size = 0, _Record(self._delimiter), 0
        wrong, detail = record.wrong, record.detail
        if record.is_open:
            wrong = TOO_LARGE if size > MAX_RECORD else OPEN_QUOTE
            until = f"line {last}" if last else "the end of the file"
            detail = f"a quoted cell begins here and is not closed before {until}: all lines up to there are refused"
        elif wrong and last > begin:
            detail += f"; lines {begin} to {last} belong to one quoted cell and are refused together"
        if not self.header:
            if wrong:
                raise Rejected(BAD_CSV, f"the header in line {begin} cannot be read: {detail}")
            self._take_header(record.cells)
            return None
        if not wrong and len(record.cells) != len(self.header):
            wrong = SHORT if len(record.cells) < len(self.header) else LONG
            detail = f"the row has {len(record.cells)} cells and the header has {len(self.header)} columns: "
            detail += (
                "put quotes around a cell that contains the delimiter" if wrong == LONG else "the row may be cut off"
            )
        if not wrong and not any(record.cells):
            return None
        return CsvRow(begin, self._named(record.cells), wrong, detail)

    def _take_header(self, cells: list[str]) -> None:
        header = [name.strip() for name in cells]
        if not self._delimiter_given:
            for word, other in (("';'", ";"), ("a tab", "\t"), ("'|'", "|")):
                if sum(cell.count(other) for cell in cells) >= len(cells):
                    option = "tab" if other == "\t" else f"'{other}'"
                    raise Rejected(
                        BAD_CSV,
                        f"the columns are separated by {word} and not by commas: write commas, or add --delimiter {option} to a command",
                    )
        twice = sorted(name for name, times in Counter(header).items() if name and times > 1)
        if twice and (self._columns is None or not set(twice).isdisjoint(self._columns)):
            raise Rejected(BAD_CSV, f"two columns have the name {twice[0]}: rename or remove one")
        if self._columns is not None and not set(header) & set(self._columns):
            known = ", ".join(self._examples or sorted(self._columns))
            raise Rejected(BAD_CSV, f"no column in the first line has a known name, such as {known}")
        for name, *others in (names for names in self._required if set(names).isdisjoint(header)):
            called = f" (or {', '.join(others)})" if others else ""
            raise Rejected(BAD_CSV, f"the first line has no column {name}{called}: every row needs it")
        if self._columns is not None and (misspelt := misspelt_column(header, self._columns)):
            raise Rejected(BAD_CSV, misspelt)
        self.header = header

    def _named(self, cells: list[str]) -> dict[str, str]:
        wanted = self._columns
        return {
            name: cell
            for name, cell in zip(self.header, cells, strict=False)
            if name and cell and (wanted is None or name in wanted)
        }

    def _undecodable(self, number: int, line: bytes, error: UnicodeDecodeError) -> CsvRow:
        detail = f"byte 0x{line[error.start]:02x} is not UTF-8: save the file with the encoding UTF-8"
        if not self.header:
            raise Rejected(BAD_CSV, f"the header in line {number} cannot be read: {detail}")
        begin = self._begin or number
        self._record.feed(line[: error.start].decode())
        cells = self._record.cells[:-1]
        self._begin, self._record, self._size = 0, _Record(self._delimiter), 0
        return CsvRow(begin, self._named(cells), NOT_UTF8, detail)


class _Record:
    """The cells of one row. It has several lines if a quoted cell contains line ends."""

    def __init__(self, delimiter: str) -> None:
        self.cells: list[str] = []
        self.is_open = False
        self.wrong = ""
        self.detail = ""
        self._delimiter = delimiter
        self._parts: list[str] = []

    def feed(self, text: str) -> None:
        """Take a line with its end."""
        if not self.is_open and '"' not in text:
            self.cells = text.rstrip("\r\n").split(self._delimiter)
            return
        at, end = 0, len(text.rstrip("\r\n"))
        while not self.wrong:
            if self.is_open:
                at = self._quoted(text, at)
                if self.is_open:
                    return
                if at < end and text[at] != self._delimiter:
                    self._fault(
                        f"cell {len(self.cells)} has text after its closing quote: write a quote inside a quoted cell twice"
                    )
                    return
            elif at < end and text[at] == '"':
                self.is_open, self._parts = True, []
                at += 1
                continue
            else:
                at = self._plain(text, at, end)
            if at >= end:
                return
            at += 1  # skip the delimiter; after the last delimiter there is an empty cell
            if at == end:
                self.cells.append("")
                return

    def _quoted(self, text: str, at: int) -> int:
        """Return the position after the closing quote. Without a closing quote the cell stays open."""
        while True:
            quote = text.find('"', at)
            if quote < 0:
                self._parts.append(text[at:])
                return len(text)
            self._parts.append(text[at:quote])
            if text[quote + 1 : quote + 2] != '"':
                self.cells.append("".join(self._parts))
                self.is_open = False
                return quote + 1
            self._parts.append('"')
            at = quote + 2

    def _plain(self, text: str, at: int, end: int) -> int:
        until = text.find(self._delimiter, at, end)
        until = end if until < 0 else until
        cell = text[at:until]
        if '"' in cell:
            self._fault(
                f"cell {len(self.cells) + 1} contains a quote: put quotes around the cell and write the quote inside it twice"
            )
        else:
            self.cells.append(cell)
        return until

    def _fault(self, detail: str) -> None:
        self.wrong, self.detail = STRAY_QUOTE, detail


def _checked_start(line: bytes) -> bytes:
    """Remove UTF-8's byte order mark from the first line. Raises: Rejected: the file is UTF-16."""
    if line.startswith(UTF16) or b"\0" in line[:4]:
        raise Rejected(BAD_CSV, "the file has the encoding UTF-16: save it as CSV with the encoding UTF-8")
    return line.removeprefix(_BOM)
