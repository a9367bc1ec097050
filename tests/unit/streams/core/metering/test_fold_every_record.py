"""The meter decides about every record that the ingress accepts: a record that stopped it would stop its partition
forever.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ingest.raw_record import strip
from connectors.ingest.rejection_record import InvalidElement
from schemas.ledger import Position
from schemas.wire import CLOUDEVENT, FLAT, INTEGRATION, LAGO
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from tests.support.calls import NOON, Raw
from tests.unit.streams.core.metering.test_fold import POLICY, subscribed

#: JSON texts of numbers that something along the way cannot hold.
NUMBERS = (
    *("-1", "-1e305", "1e300", "1e308", "1e-400", "-0.0", "0." + "1" * 120, "1" * 30, "9" * 310, "9" * 400, "9" * 4200),
    *("1700000000." + "3" * 108, "18446744073709551616", "-9223372036854775809", "0.1e-30", "1e27", "9" * 59 + ".5"),
)
SHAPES: dict[str, dict[str, Any]] = {
    FLAT: {"id": "x", "end_user": "c", "model": "m", "spend": 0.1, "startTime": 1795176000, "endTime": 1795176001},
    INTEGRATION: {"request_id": "x", "customer_id": "c", "cost_usd": 0.1, "timestamp": 1795176000, "tokens_input": 1},
    LAGO: {"transaction_id": "x", "external_subscription_id": "s", "timestamp": 1795176000, "code": "ai_usage"},
}
FIELDS = (
    *("startTime", "endTime", "completionStartTime", "timestamp", "spend", "response_cost", "cost_usd"),
    *("prompt_tokens", "completion_tokens", "total_tokens", "tokens_input", "tokens_output", "cached_tokens"),
    *("reasoning_tokens", "precise_total_amount_cents", "id", "request_id", "litellm_call_id", "transaction_id"),
)


def decided(element: bytes, shape: str) -> int:
    """The number of calls that the fold decided about; records that the ingress refused do not arrive."""
    try:
        stored = strip(element, shape, NOON, CUSTOMER_ID_FIELDS)
    except InvalidElement:
        return 1
    assert stored is not None
    record = Raw(0, NOON // 1000, stored[0].encode(), stored[1])
    return sum(Fold(POLICY, "")(LedgerState(Position()), [record], subscribed).decisions.values())


@pytest.mark.parametrize("quoted", [False, True], ids=["number", "text"])
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_number_stops_the_meter(shape: str, field: str, quoted: bool) -> None:
    for number in NUMBERS:
        call = json.dumps({**SHAPES[shape], field: "@"}).replace('"@"', f'"{number}"' if quoted else number)
        assert decided(call.encode(), shape) == 1, number


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("field", ["cost", "prompt_tokens", "total_tokens"])
def test_no_number_in_a_cloud_event_stops_the_meter(field: str, number: str) -> None:
    event = {"id": "x", "source": "s", "subject": "c", "time": "2026-11-20T12:00:00Z", "data": {field: "@"}}
    assert decided(json.dumps(event).replace('"@"', number).encode(), CLOUDEVENT) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(SHAPES)), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_no_json_document_stops_the_meter(shape: str, changes: dict[str, Any]) -> None:
    assert decided(json.dumps({**SHAPES[shape], **changes}).encode(), shape) == 1
