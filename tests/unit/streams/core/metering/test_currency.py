"""A cost that names another currency than the US dollar is never billed as dollars (docs/owed.md, law 3)."""

from decimal import Decimal

import pytest

from connectors.ingest.raw_record import strip
from connectors.ingest.rejection_record import InvalidElement
from connectors.operations.dead_letters import usage_of
from schemas.errors import Rejected
from schemas.rounding import quantum
from schemas.wire import CLOUDEVENT, FLAT, INTEGRATION, LAGO, Call, CloudEvent, CloudEventData, LagoProperties
from streams.core.metering.cost_fields import amount_of
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS

COST = Decimal("0.1")
#: A currency in each place, beside a cost, and the place's path.
PLACES = {
    "currency": lambda currency: Call(spend=COST, currency=currency),
    "properties.currency": lambda currency: Call(
        precise_total_amount_cents=COST * 100, properties=LagoProperties(currency=currency)
    ),
    "data.currency": lambda currency: Call(cloud_event=CloudEvent(data=CloudEventData(cost=COST, currency=currency))),
}


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("currency", ["EUR", "eur", "US", "$", "USD,EUR"])
def test_a_cost_in_another_currency_is_refused(path: str, currency: str) -> None:
    with pytest.raises(Rejected) as refused:
        amount_of(PLACES[path](currency))
    assert refused.value.reason == "foreign_currency"
    assert refused.value.detail.startswith(f"{path} is not USD") and "EUR" not in refused.value.detail


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("currency", ["USD", "usd", " USD ", "", None])
def test_a_cost_in_dollars_or_without_a_currency_is_read(path: str, currency: str | None) -> None:
    assert amount_of(PLACES[path](currency)) == COST


def test_a_currency_without_a_cost_refuses_nothing() -> None:
    """There is nothing to take for dollars; a rate card may price the call."""
    assert amount_of(Call(currency="EUR", prompt_tokens=3)) is None


BODIES = {
    FLAT: '{"id": "a", "end_user": "acme", "spend": 0.1, "currency": %s}',
    INTEGRATION: '{"id": "a", "customer_id": "acme", "cost_usd": "0.1", "currency": %s}',
    LAGO: '{"transaction_id": "a", "external_subscription_id": "acme", "code": "c", "properties":'
    ' {"response_cost": 0.1, "currency": %s}}',
    CLOUDEVENT: '{"id": "a", "source": "s", "subject": "acme", "data": {"cost": 0.1, "currency": %s}}',
}


@pytest.mark.parametrize("shape", BODIES)
@pytest.mark.parametrize(
    ("currency", "reason"), [('"EUR"', "foreign_currency"), ("978", "foreign_currency"), ('["USD"]', "wrong_type")]
)
def test_the_ingress_refuses_such_a_call_in_every_shape(shape: str, currency: str, reason: str) -> None:
    body = (BODIES[shape] % currency).encode()
    with pytest.raises(InvalidElement) as refused:
        strip(body, shape, 1, CUSTOMER_ID_FIELDS)
    assert (refused.value.reason, refused.value.detail.split(" ")[0].endswith("currency")) == (reason, True)


@pytest.mark.parametrize("shape", BODIES)
@pytest.mark.parametrize("currency", ['"usd"', "null", '""'])
def test_a_call_in_dollars_is_stored_in_every_shape(shape: str, currency: str) -> None:
    stored = strip((BODIES[shape] % currency).encode(), shape, 1, CUSTOMER_ID_FIELDS)
    assert stored is not None
    usage = usage_of(stored[1], stored[0], quantum())
    assert usage is not None and (usage.customer_id, usage.cost) == ("acme", COST)
