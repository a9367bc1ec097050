"""Names of any length: the memory that a window and a cache need does not depend on what a sender calls a model."""

from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import msgspec
import pytest

from connectors.ingest.call_context import ContextFields
from schemas.bounded_name import MAX_BYTES, bounded_name
from schemas.rates import RateCard
from streams.core.pricing.cards import Rates
from streams.runtime.forwarding import Forwarder
from tests.support.calls import NOON
from tests.support.meter_line import POLICY, Line

#: Four names of this length in one call are about as much as the ingress accepts.
LONG = "m" * 220_000


def line() -> Line:
    return Line(None, replace(POLICY, group_by=("key_alias", "model_group")))


def grown(many: Line) -> int:
    """Return the bytes of all values of the changelog."""
    return sum(len(value) for value in many.values.values() if value is not None)


@pytest.mark.parametrize("mapped", [True, False], ids=["open", "held"])
def test_a_window_keeps_a_long_name_by_its_hash(*, mapped: bool) -> None:
    """Earlier each window kept the whole name: some thousand held calls filled the memory of every worker that came."""
    many = line()
    if mapped:
        many.map("acme")
    for number in range(10):
        name = f"{LONG}{number}"
        fields = {"model": name, "custom_llm_provider": name, "model_group": name}
        many.call(("acme", 0), **fields, metadata={"user_api_key_alias": name})
        many.call(("acme", 0), **fields, metadata={"user_api_key_alias": name})
    windows = list(many.ledger.windows.values())
    assert sorted(window.count for window in windows) == [2] * 10
    for window in windows:
        assert all(len(name) <= MAX_BYTES for name in (window.model, window.provider, *window.group))
    assert {window.model for window in windows} == {bounded_name(f"{LONG}{number}") for number in range(10)}
    assert grown(many) < 50_000
    many.punctuate()
    assert many.money().total() == 20


def test_a_customer_that_another_program_named_is_kept_by_its_hash() -> None:
    many = line()
    many.call((LONG, 0))
    assert [window.customer_id for window in many.ledger.windows.values()] == [bounded_name(LONG)]


def test_no_cache_keeps_long_keys() -> None:
    """Earlier their entries were counted and not measured: a thousand entries of a megabyte each are a gigabyte."""
    kept, forwarder = ContextFields(), Forwarder({}, "raw", 0)
    rates = Rates([RateCard("card", 0, 0)])
    for length in (10, 100_000):
        name = "n" * length
        call = kept.read(msgspec.json.encode({"api_base": f"https://host/{name}"}))
        assert kept.context(kept.take(call), SimpleNamespace(metadata=None, status=None)) == (  # type: ignore[arg-type]
            b'{"server_address":"host"}'
        )
        assert forwarder.target(name.encode(), 1, 4) in range(4)
        usage = SimpleNamespace(model=name, provider="p", end_us=NOON, cost=Decimal(1))
        assert rates._tariff(rates._cards[0], usage) is not None  # type: ignore[arg-type]
    sizes = [len(kept._hosts), len(forwarder._targets), len(rates._tariffs)]
    assert sizes == [1, 1, 1]
