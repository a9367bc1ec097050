"""What the ingress refused comes again where only a detail was wrong, and never without its money or its owner."""

import json

import msgspec
import pytest

from connectors.http.ingress.rejections import Refused, rejection
from connectors.http.ingress.strip import strip
from connectors.operations.second_reading import read_again
from schemas.records import Rejection
from schemas.wire import CLOUDEVENT, FLAT, RawRecord
from streams.core.customer_key import CUSTOMER_ID_FIELDS
from tests.support.calls import NOON

GOOD = {"id": "r", "litellm_call_id": "c", "spend": 0.5, "startTime": NOON / 1e6, "end_user": "acme", "model": "m"}


def refused(shape: str = FLAT, **fields: object) -> Rejection:
    """As the ingress keeps it."""
    element = json.dumps({**GOOD, **fields}).encode()
    with pytest.raises(Refused) as found:
        strip(element, shape, NOON, CUSTOMER_ID_FIELDS)
    return msgspec.json.decode(rejection(found.value, element, NOON), type=Rejection)


@pytest.mark.parametrize(
    "detail", [{"model": ["m"]}, {"prompt_tokens": {"n": 1}}, {"byok": [1]}, {"model": [], "total_tokens": []}]
)
def test_a_wrong_detail_costs_the_call_nothing(detail: dict[str, object]) -> None:
    found = read_again(refused(**detail), CUSTOMER_ID_FIELDS)
    assert found is not None
    key, value = found
    record = msgspec.json.decode(value, type=RawRecord)
    assert (key, record.received_at, str(record.call.spend), record.call.id) == ("acme", NOON, "0.5", "r")


@pytest.mark.parametrize(
    "field", ["spend", "id", "litellm_call_id", "startTime", "endTime", "end_user", "metadata", "cost_usd"]
)
def test_without_money_identity_time_or_customer_it_stays_refused(field: str) -> None:
    wrong = [1] if field == "metadata" else {"x": 1}
    assert read_again(refused(**{field: wrong}), CUSTOMER_ID_FIELDS) is None


def test_what_was_no_call_stays_refused() -> None:
    assert read_again(Rejection("not_json", "ingress", NOON, length=3), CUSTOMER_ID_FIELDS) is None


def test_a_cloud_event_is_still_one() -> None:
    event = {"id": "e", "source": "s", "subject": "acme", "time": NOON / 1e6, "data": {"cost": 1, "model": [1]}}
    element = json.dumps(event).encode()
    with pytest.raises(Refused) as found:
        strip(element, CLOUDEVENT, NOON, CUSTOMER_ID_FIELDS)
    kept = msgspec.json.decode(rejection(found.value, element, NOON), type=Rejection)
    again = read_again(kept, CUSTOMER_ID_FIELDS)
    assert again is not None and again[0] == "acme"
    assert msgspec.json.decode(again[1], type=RawRecord).shape == CLOUDEVENT
