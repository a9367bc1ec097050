"""Usage reports: percentiles from buckets, decimals as text, and CSV cells that no spreadsheet runs as a formula."""

import csv
import io
from decimal import Decimal
from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.api.analytics import _as_csv
from connectors.operations.csv_text import csv_line, csv_text
from connectors.operations.usage_report import _SUMS, UsageSums, percentile_ms, plain


def bucket_of(latency_ms: int) -> int:
    """Return the bucket of a value, as in migrations/0015_analytics.sql."""
    return min(79, ceil(4 * log2(latency_ms)))


@given(st.lists(st.integers(1, 800_000), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_less_than_19_percent_off(latencies: list[int], share: float) -> None:
    counts = [0] * 80
    for latency in latencies:
        counts[bucket_of(latency)] += 1
    true = sorted(latencies)[ceil(share * len(latencies)) - 1]
    result = percentile_ms(counts, share)
    assert result is not None and true / 1.19 - 1 <= result <= true * 1.19 + 1


def test_without_calls_there_is_no_percentile() -> None:
    assert percentile_ms([0] * 80, 0.95) is None


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0.500", "0.5"), ("1E-12", "0.000000000001"), ("100", "100"), ("0E-20", "0"), ("-0.10", "-0.1")],
)
def test_decimals_are_plain_text_with_every_digit(amount: str, text: str) -> None:
    assert plain(Decimal(amount)) == text


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")), min_size=2))
def test_a_csv_cell_keeps_its_value_and_never_begins_like_a_formula(cells: list[str]) -> None:
    text = csv_text([f"c{n}" for n in range(len(cells))], [cells])
    [_, read] = csv.reader(io.StringIO(text, newline=""), strict=True)
    risky = tuple("=+-@\t\r\n")
    assert read == [f"'{cell}" if cell.startswith(risky) else cell for cell in cells]
    assert not any(cell.startswith(risky) for cell in read)


def test_a_loss_is_a_number_in_the_csv_of_the_analytics() -> None:
    """Earlier a margin below 0 had an apostrophe in front: a spreadsheet's sums left out each loss."""
    sums = dict.fromkeys(_SUMS, 1) | {"provider_cost_usd": Decimal("2.000000000001"), "billed_usd": Decimal("0.5")}
    rows = [UsageSums("=1+1", {**sums, "own_key_cost_usd": Decimal(0)}).as_object("user")]
    text = _as_csv("user", rows).text
    assert text is not None
    [read] = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    assert (read["user"], read["margin_usd"], read["p95_latency_ms"]) == ("'=1+1", "-1.500000000001", "")
    assert (read["calls"], read["success_rate"]) == ("1", "0.5")


def test_numbers_are_not_escaped_as_formulas() -> None:
    assert csv_line([-1, Decimal("-0.5"), None, "-1"]) == "-1,-0.5,,'-1\r\n"
