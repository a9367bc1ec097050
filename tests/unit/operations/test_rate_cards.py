"""Which rate card versions may be stored: a version in force never changes, and none starts before every meter can know
it.
"""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from connectors.billing.rate_files import POWER_LEVELS, card_of
from connectors.operations.ledger_init import cost_of
from connectors.operations.logged_usage import Logged
from connectors.operations.price_list import InvalidPriceList, listed_as, listed_price, read_prices
from connectors.operations.rate_cards import StoredCards, check_put, dropped_factors, has_added_factors
from connectors.operations.rate_test import price_by
from schemas.errors import Rejected
from schemas.moments import SECOND_US
from schemas.rates import RateCard
from schemas.records import LagoEvent
from streams.core.pricing.cards import Rates
from tests.support.calls import NOON
from tests.support.rate_cards import call, card, entry

D = Decimal
LEAD = 5 * SECOND_US
OLD = card(entry(markup_percent="10"), name="old", begins=NOON - 60 * SECOND_US)
NEXT = card(entry(markup_percent="20"), name="next", begins=NOON + 60 * SECOND_US)
KNOWN = StoredCards((OLD, NEXT))


def put(one: object, *, back_date: bool = False) -> bool:
    return check_put(one, KNOWN, NOON, LEAD, back_date=back_date)  # type: ignore[arg-type]


def test_a_new_version_starts_in_the_future_unless_the_caller_asks_explicitly() -> None:
    assert put(card(name="n", begins=NOON + LEAD))
    late = card(name="n", begins=NOON + LEAD - SECOND_US)
    with pytest.raises(Rejected, match="rate_in_the_past"):
        put(late)
    assert put(late, back_date=True)


def test_an_unchanged_version_is_not_written_and_one_in_force_never_changes() -> None:
    assert not put(OLD) and not put(msgspec.structs.replace(OLD, put_at=7))
    for begins in (OLD.effective_from, NOON + 600 * SECOND_US):
        with pytest.raises(Rejected, match="rate_in_force"):
            put(card(entry(markup_percent="11"), name="old", begins=begins), back_date=True)
    assert put(card(entry(markup_percent="21"), name="next", begins=NEXT.effective_from))
    assert put(card(name="next", begins=NOON + 3600 * SECOND_US))


FILE = 'id = "old"\neffective_from = "2026-11-01T00:00:00Z"\n[factors.org]\nacme = "0.85"\n'


def test_the_file_of_a_version_in_force_may_be_put_again_although_it_was_read_differently_earlier() -> None:
    """A repeat in CI must not fail; earlier a table of factors brought those of the power levels with it."""
    read = card_of(FILE)
    assert read.factors is not None
    stored = msgspec.structs.replace(read, factors=msgspec.structs.replace(read.factors, power_level=POWER_LEVELS))
    known = StoredCards((stored,))
    assert has_added_factors(stored) and not has_added_factors(read)
    assert not check_put(read, known, NOON, LEAD, back_date=False)
    assert dropped_factors(stored, read) == ["power_level eco x 0.7", "power_level precision x 1.5"]
    with pytest.raises(Rejected, match="rate_in_force"):
        check_put(card_of(FILE.replace("0.85", "0.8")), known, NOON, LEAD, back_date=False)
    before_it_begins = stored.effective_from - 600 * SECOND_US
    assert check_put(read, known, before_it_begins, LEAD, back_date=False)


def test_factors_that_a_new_version_lacks_are_named() -> None:
    before = card_of(FILE + '[factors.team]\nt = "2"\nfree = "1"\n')
    assert dropped_factors(before, card_of(FILE.split("[", maxsplit=1)[0])) == ["team t x 2", "org acme x 0.85"]
    assert dropped_factors(before, before) == [] and dropped_factors(None, before) == []


def test_two_versions_never_start_at_the_same_moment() -> None:
    with pytest.raises(Rejected, match="rate_taken"):
        put(card(name="n", begins=NEXT.effective_from))


def test_the_version_in_force_is_shown_with_its_end() -> None:
    assert KNOWN.at(NOON) is OLD and KNOWN.at(NEXT.effective_from) is NEXT and KNOWN.at(0) is None
    assert KNOWN.until_us(OLD) == NEXT.effective_from and KNOWN.until_us(NEXT) is None


@pytest.mark.parametrize(
    ("properties", "cents", "cost"),
    [
        ({"cost_usd": "2"}, "200", D(2)),
        ({"cost_usd": "2", "rate": "r", "billed_usd": "3"}, "300", D(2)),
        ({"transaction_id": "t", "rate": "x", "cost_usd": "junk"}, "0", D(0)),
    ],
)
def test_the_shown_cost_of_an_event_is_what_the_provider_charged(
    properties: dict[str, str], cents: str, cost: Decimal
) -> None:
    """A metered event has properties of its sender's choice."""
    assert cost_of(LagoEvent("t", "s", "c", "0", cents, properties), D(cents) / 100) == cost


def test_a_card_from_litellms_price_list_prices_each_kind_of_token_once() -> None:
    listed = {
        "input_cost_per_token": D("2e-6"),
        "output_cost_per_token": D("8e-6"),
        "cache_read_input_token_cost": D("1e-6"),
    }
    used = call(tokens_input=10, cached_tokens=4, tokens_output=3, reasoning_tokens=2)
    assert listed_price(listed, used) == D("0.00004")
    assert listed_price({**listed, "input_cost_per_token_above_200k_tokens": D(1)}, used) is None
    assert listed_price({"output_cost_per_image": D(1)}, used) is None
    assert listed_as({"gpt-4o": listed}, used) is listed and listed_as({"azure/gpt-4o": listed}, used) is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"gpt-4o": \n {', "line 2, column 3: the JSON is invalid"),
        ("[]", "the file must be a JSON object by model"),
    ],
)
def test_an_unreadable_price_list_is_refused_with_the_place_and_the_next_step(
    tmp_path: Path, content: str, sentence: str
) -> None:
    file = tmp_path / "prices.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidPriceList) as refused:
        read_prices(file)
    assert str(file) in str(refused.value) and sentence in str(refused.value)
    assert "pass LiteLLM's model_prices_and_context_window.json" in str(refused.value)


@pytest.mark.parametrize(
    ("cost", "fields", "version", "price"),
    [
        ("0", {}, card(default=entry(markup_percent="20", minimum="0.01")), None),
        ("0", {}, card(default=entry(minimum="0.01")), None),
        ("0", {}, card(entry("another", input="1")), None),
        ("0", {}, card(entry(input="1")), D("0.0001")),
        ("0", {"images": 2}, card(entry(per_image="0.5")), D("1")),
        ("0", {"request_id": "r_cache_hit1795215634.42"}, card(default=entry(minimum="0.01")), D("0.01")),
        ("0.5", {}, card(default=entry(markup_percent="20", minimum="0.01")), D("0.6")),
        ("0.001", {}, card(default=entry(minimum="0.01")), D("0.01")),
    ],
)
def test_a_tested_version_bills_a_call_without_a_cost_only_if_it_prices_what_was_counted(
    cost: str, fields: dict[str, object], version: RateCard, price: Decimal | None
) -> None:
    """The version in force priced the call, so the log says `billable`. A test once said that a minimum would bill it."""
    usage = call(cost, tokens_input=100, total_tokens=100, **fields)
    logged = Logged(usage, "billable", "org", "sub", D("0.3"), datetime(2026, 11, 20, tzinfo=UTC))
    found = price_by(Rates([version]), logged)
    assert (None if found is None else found.usd) == price
