"""CSV is read strictly: a damaged row is reported with its line and reason, and never becomes a call that was not made."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.operations import csv_table
from connectors.operations.csv_table import CsvRow, CsvTable
from schemas.errors import Rejected


def read(body: bytes, columns: tuple[str, ...] | None = None, delimiter: str = "") -> list[CsvRow]:
    table = CsvTable(columns, delimiter)
    found: list[CsvRow] = []
    for number, line in enumerate(io.BytesIO(body), 1):
        found += table.feed(number, line)
    return [*found, *table.end()]


def rows_of(body: bytes, **options: str) -> list[tuple[int, str]]:
    """(line, reason, or the cells' values) of every row."""
    return [(row.line, row.wrong or "|".join(row.cells.values())) for row in read(body, **options)]  # type: ignore[arg-type]


def test_a_quoted_cell_may_contain_line_ends_delimiters_and_quotes() -> None:
    assert rows_of(b'a,b\r\n"one\r\ntwo, ""three""",x\r\n4,""\r\n') == [(2, 'one\r\ntwo, "three"|x'), (4, "4")]


def test_a_stray_quote_damages_only_its_own_row() -> None:
    assert rows_of(b'a,b\n5" disk,x\n1,2\n7,"8"x\n3,4\n') == [
        (2, "stray_quote"),
        (3, "1|2"),
        (4, "stray_quote"),
        (5, "3|4"),
    ]


def test_rows_inside_an_unclosed_quote_are_refused_together_and_never_read_as_rows() -> None:
    """They may be the text of a prompt, which any client may have written."""
    first, second = read(b'a,b\n"cut,1\nvictim,1000\nx "y",2\n5,6\n')
    assert (first.line, first.wrong, "lines 2 to 4" in first.detail) == (2, "stray_quote", True)
    assert second.cells == {"a": "5", "b": "6"}
    [cut] = read(b'a,b\n"a prompt\nvictim,1000\n')
    assert (cut.line, cut.wrong, "end of the file" in cut.detail) == (2, "open_quote", True)


def test_rows_with_too_few_or_too_many_cells_are_refused_also_at_a_chunk_border() -> None:
    assert rows_of(b"a,b,c\n1,2\n1,2,3,4\n1,2,3\n4,5") == [
        (2, "short_row"),
        (3, "long_row"),
        (4, "1|2|3"),
        (5, "short_row"),
    ]
    assert rows_of(b"a,b\n1,2") == [(2, "1|2")], "the last line of a whole file need not end"


def test_an_unsupported_encoding_is_named() -> None:
    assert rows_of("a,b\nZoë,1\nZoe,2\n".encode("cp1252")) == [(2, "not_utf8"), (3, "Zoe|2")]
    assert "0xeb" in read("a,b\nZoë,1\n".encode("cp1252"))[0].detail
    assert rows_of("a,b\nZoë,1\n".encode("utf-8-sig")) == [(2, "Zoë|1")]
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(Rejected, match="UTF-16"):
            read("a,b\n1,2\n".encode(encoding))
    with pytest.raises(Rejected, match="header in line 1 cannot be read: byte 0xeb"):
        read("Zoë,b\n1,2\n".encode("cp1252"))


@pytest.mark.parametrize(("delimiter", "option"), [(";", "';'"), ("\t", "tab"), ("|", "'|'")])
def test_another_delimiter_is_reported_and_accepted_with_its_option(delimiter: str, option: str) -> None:
    body = f"org_id{delimiter}plan_code\n1{delimiter}2,5\n".encode()
    with pytest.raises(Rejected, match="--delimiter") as refused:
        read(body)
    assert option in refused.value.detail
    assert rows_of(body, delimiter="tab" if delimiter == "\t" else delimiter) == [(2, "1|2,5")]


def test_a_file_without_a_header_or_with_a_duplicate_column_is_refused() -> None:
    for body in (b"", b"\n \n"):
        with pytest.raises(Rejected, match="the file is empty"):
            read(body)
    with pytest.raises(Rejected, match="two columns have the name spend"):
        read(b"spend,spend\n1,2\n")
    assert read(b"x,x,spend\n1,2,3\n", ("spend",)) == [CsvRow(2, {"spend": "3"})]


def test_cells_of_any_size_in_unused_columns_are_accepted() -> None:
    long = b"x" * (1 << 20)
    [row] = read(b'id,messages,spend\n1,"' + long + b"\n" + long + b'",0.5\n', ("id", "spend"))
    assert row.cells == {"id": "1", "spend": "0.5"}


def test_a_row_longer_than_the_maximum_is_skipped_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_table, "MAX_RECORD", 100)
    found = read(b'a\n"' + b"x" * 50 + b"\n" + b"y\n" * 60)
    assert (found[0].line, found[0].wrong, found[-1].cells) == (2, "row_too_large", {"a": "y"})


def test_a_refused_row_still_has_the_cells_before_the_error() -> None:
    assert read(b'request_id,model\nreq-1,5" disk\n')[0].cells == {"request_id": "req-1"}
    assert read("request_id,model\nreq-1,Zoë\n".encode("cp1252"))[0].cells == {"request_id": "req-1"}
    assert read(b"request_id,model\nreq-1\n")[0].cells == {"request_id": "req-1"}


cells = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=8), min_size=3, max_size=3)


@given(
    st.lists(cells, max_size=8), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.sampled_from(["\r\n", "\n"])
)
def test_a_file_by_pythons_csv_writer_is_read_back_unchanged(table: list[list[str]], quoting: int, end: str) -> None:
    """Except NUL and a lone carriage return, which the writer leaves without quotes in some versions."""
    table = [[cell.replace("\0", "").replace("\r", "") for cell in row] for row in table]
    out = io.StringIO()
    csv.writer(out, quoting=quoting, lineterminator=end).writerows([["a", "b", "c"], *table])  # type: ignore[arg-type]
    found = [row.cells for row in read(out.getvalue().encode())]
    assert found == [{k: v for k, v in zip("abc", row, strict=True) if v} for row in table if any(row)]


@given(st.binary(max_size=60))
def test_no_input_bytes_raise_an_unexpected_error(body: bytes) -> None:
    for row in read(b"a,b\n" + body):
        assert row.wrong or len(row.cells) <= 2


def test_a_header_without_a_known_column_is_refused_once_and_not_with_each_row() -> None:
    table = CsvTable({"litellm_customer_id", "lago_customer_id"})
    with pytest.raises(Rejected, match="has a known name, such as lago_customer_id, litellm_customer_id") as refused:
        list(table.feed(1, b"customer,sk-canary\n"))
    assert "sk-canary" not in refused.value.detail
    assert list(CsvTable({"lago_customer_id"}).feed(1, b"lago_customer_id,more\n")) == []
