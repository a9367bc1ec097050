"""A price list has little more than ids, a start and a price. What the usage log knows of the call stays that of the log."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from connectors.ingest.raw_record import strip
from connectors.operations.pricing import as_counted
from schemas.moments import SECOND_US
from schemas.normalised_call import Usage
from schemas.rounding import quantum
from schemas.wire import BACKFILL, FLAT
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.identity import identity_of
from streams.core.metering.matching import LoggedCall, LoggedDetails
from streams.core.metering.read_usage import usage_of
from tests.support.calls import NOON

UNIT = quantum()
START = NOON - 9 * SECOND_US
DETAILS = LoggedDetails(
    provider="openai",
    call_type="aresponses",
    tokens_input=100,
    tokens_output=50,
    total_tokens=150,
    cached_tokens=7,
    reasoning_tokens=5,
    end_us=NOON,
    user_id="u",
    team_id="t",
    organization_id="o",
    key_hash="a" * 64,
    key_alias="k",
    power_level="eco",
    cache_write_tokens=3,
    images=2,
    seconds=Decimal("1.5"),
    byok=True,
)
ROW = LoggedCall(
    identity_of("litellm", "call-1", "chatcmpl-1", "success", str(START // 1000)),
    "unpriced",
    "success",
    Decimal(0),
    billed=False,
    customer_id="acme",
    id_kind="team",
    model="own/model",
    call_id="call-1",
    request_id="chatcmpl-1",
    start_us=START,
    details=DETAILS,
)


def priced(**fields: Any) -> Usage:
    element = {"id": "chatcmpl-1", "litellm_call_id": "call-1", "startTime": START / 1e6, "spend": 2, **fields}
    stored = strip(msgspec.json.encode(element), FLAT, NOON, CUSTOMER_ID_FIELDS, BACKFILL)
    assert stored is not None
    key, value = as_counted(stored[1], ROW, UNIT)
    return usage_of(value, key.decode(), UNIT)


def test_a_price_list_changes_only_the_price() -> None:
    usage = priced()
    assert (usage.cost, usage.identity, usage.customer_id, usage.id_kind) == (2, ROW.identity, "acme", "team")
    assert (usage.model, usage.end_us) == ("own/model", NOON)
    names = set(LoggedDetails._fields) - {"end_us"}
    assert {name: getattr(usage, name) for name in names} == {name: getattr(DETAILS, name) for name in names}


def test_what_a_copy_says_itself_stays_its_own() -> None:
    usage = priced(
        model="m",
        total_tokens=9,
        prompt_tokens=4,
        endTime=NOON / 1e6 + 1,
        team_id="other",
        metadata={"power_level": "precision"},
    )
    assert (usage.model, usage.total_tokens, usage.tokens_input, usage.images) == ("m", 9, 4, 0)
    assert (usage.end_us, usage.team_id, usage.power_level) == (NOON + SECOND_US, "other", "precision")


@pytest.mark.parametrize("status", ["", "success"])
@pytest.mark.parametrize("details", [None, DETAILS])
def test_a_call_whose_sender_gave_no_time_keeps_its_identity(details: LoggedDetails | None, status: str) -> None:
    """Earlier a price list made a second call of it, and the next copy of the call was billed too."""
    identity = identity_of("litellm", "", "np-1", status, "")
    row = ROW._replace(identity=identity, call_id="", request_id="np-1", start_us=NOON, details=details)
    element = {"request_id": "np-1", "startTime": NOON / 1e6, "spend": 2}
    stored = strip(msgspec.json.encode(element), FLAT, NOON + SECOND_US, CUSTOMER_ID_FIELDS, BACKFILL)
    assert stored is not None
    usage = usage_of(as_counted(stored[1], row, UNIT)[1], "acme", UNIT)
    assert (usage.identity, usage.cost, usage.end_us) == (identity, 2, NOON)
    assert (usage.model, usage.total_tokens) == (("own/model", 150) if details else ("", 0))


@pytest.mark.parametrize("details", [None, LoggedDetails()])
def test_a_row_without_details_adds_none(details: LoggedDetails | None) -> None:
    element = {"id": "chatcmpl-1", "litellm_call_id": "call-1", "startTime": START / 1e6, "spend": 2}
    stored = strip(msgspec.json.encode(element), FLAT, NOON, CUSTOMER_ID_FIELDS, BACKFILL)
    assert stored is not None
    _, value = as_counted(stored[1], ROW._replace(details=details), UNIT)
    usage = usage_of(value, "acme", UNIT)
    assert (usage.cost, usage.identity, usage.end_us) == (2, ROW.identity, START)
