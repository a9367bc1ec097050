"""A malformed detail never prevents billing: if cost, identity, time and customer are valid, the call is billed."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ingest.raw_record import strip
from connectors.ingest.rejection_record import InvalidElement
from schemas.errors import Rejected
from schemas.ledger import Position
from schemas.normalised_call import Usage
from schemas.wire import FLAT, INTEGRATION, METERED, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.read_usage import usage_of
from tests.support.calls import NOON, Raw, raw_value, slp
from tests.unit.streams.core.metering.test_fold import POLICY, subscribed

UNIT = Decimal("1e-12")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["1_000", "\0", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
DETAILS = (
    *("call_type", "custom_llm_provider", "model", "model_group", "prompt_tokens", "completion_tokens", "total_tokens"),
    *(
        "tokens_input",
        "tokens_output",
        "cached_tokens",
        "reasoning_tokens",
        "key_alias",
        "event_type",
        "code",
        "provider",
    ),
    *("completionStartTime", "model_id", "api_base", "cost_breakdown", "request_tags", "api_key_hash"),
)
INNER = ("prompt_tokens_details", "completion_tokens_details", "cache_read_input_tokens", "cache_creation_input_tokens")


def call(**changes: Any) -> dict[str, Any]:
    times = {"startTime": NOON / 1e6 - 1, "endTime": NOON / 1e6}
    return {"id": "x", "end_user": "c", "response_cost": 0.25, **times, **changes}


def usage(call: dict[str, Any], route: str = FLAT) -> Usage:
    stored = strip(json.dumps(call).encode(), route, NOON, CUSTOMER_ID_FIELDS)
    assert stored is not None
    return usage_of(stored[1], stored[0], UNIT)


@given(st.dictionaries(st.sampled_from(DETAILS), JSON, max_size=5), JSON, JSON, st.sampled_from(INNER))
def test_a_malformed_detail_never_prevents_billing(
    changes: dict[str, Any], metadata: Any, odd: Any, inner: str
) -> None:
    for of_metadata in ({"usage_object": {inner: odd}}, {"usage_object": odd}):
        found = usage(call(**changes, metadata=of_metadata))
        assert (found.cost, found.customer_id) == (Decimal("0.25"), "c")
        assert found.total_tokens >= 0
    if not isinstance(metadata, dict):
        assert usage(call(**changes, metadata=metadata)).cost == Decimal("0.25")


def without_surrogates(value: Any) -> Any:
    if isinstance(value, dict):
        return {without_surrogates(name): without_surrogates(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_surrogates(inner) for inner in value]
    return value.encode("utf-8", "ignore").decode() if isinstance(value, str) else value


@given(st.dictionaries(st.sampled_from(DETAILS), JSON, max_size=5))
def test_the_meter_accepts_details_that_older_ingresses_stored(changes: dict[str, Any]) -> None:
    """They stored no lone surrogate and no NaN: their parser accepted none."""
    text = json.dumps(call(**without_surrogates(changes)))
    text = text.replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null")
    envelope = {"v": 1, "source": "webhook", "shape": FLAT, "received_at": NOON, "id_kind": "end_user"}
    value = f'{json.dumps(envelope)[:-1]},"call":{text}}}'.encode()
    assert usage_of(value, "c", UNIT).cost == Decimal("0.25")


@pytest.mark.parametrize(
    ("told", "count"),
    [
        *((15, 15), ("15", 15), ("15.0", 15), (" 15 ", 15), (15.0, 15), ("1.5e1", 15), (-5, 0), ("-5", 0), (1.5, 0)),
        *(("x", 0), (True, 0), ([15], 0), (10**13, 0), ("1_5", 0), (None, 0), (float("nan"), 0), ("", 0)),
    ],
)
def test_a_count_is_converted_if_its_meaning_is_clear_and_left_out_otherwise(told: Any, count: int) -> None:
    found = usage(
        call(prompt_tokens=told, metadata={"usage_object": {"prompt_tokens_details": {"cached_tokens": told}}})
    )
    assert (found.tokens_input, found.cached_tokens) == (count, count)
    assert bool(found.note) is (isinstance(told, bool) or (told is not None and told != 15))


@pytest.mark.parametrize(("told", "hit"), [(0, False), (1, True), ("1", True), ("0", False), ("False", False)])
@pytest.mark.parametrize("name", ["cache_hit", "byok"])
def test_a_flag_may_be_a_number_or_a_text(name: str, told: Any, hit: bool) -> None:
    assert getattr(usage(call(**{name: told})), name) is hit


@pytest.mark.parametrize(
    ("told", "status"),
    [
        *((code, "success") for code in (200, 299, True, [], 300, 399, 199)),
        *((code, "failure") for code in (400, 401, 500, 999, False)),
    ],
)
def test_a_status_may_be_that_of_http(told: Any, status: str) -> None:
    assert usage(call(status=told)).status == status


def test_metadata_may_be_json_in_a_string() -> None:
    result = json.dumps({"user_api_key_team_id": "t", "usage_object": json.dumps({"cache_read_input_tokens": 7})})
    found = usage(call(end_user=None, metadata=result))
    assert (found.customer_id, found.id_kind, found.cached_tokens) == ("t", "team", 7)


NINE = 1_795_856_400
TIMES = (
    *(
        NINE,
        f"{NINE}",
        f"{NINE}.0",
        NINE * 1000,
        f"{NINE}000",
        NINE * 10**6,
        f"{NINE}000000",
        NINE * 10**9,
        "1.7958564e9",
    ),
    *("2026-11-28T09:00:00Z", "2026-11-28t09:00:00z", "2026-11-28 09:00:00", "2026-11-28 09:00:00+00"),
    *(
        "2026-11-28T10:00:00+01:00",
        "2026-11-28 10:00:00 +0100",
        "2026-11-28 09:00:00 UTC",
        " 2026-11-28T09:00:00.000Z ",
    ),
)


@pytest.mark.parametrize("told", TIMES)
def test_a_time_is_read_in_every_documented_format(told: Any) -> None:
    stored = strip(json.dumps(call(startTime=told, endTime=told)).encode(), FLAT, NINE * 10**6, CUSTOMER_ID_FIELDS)
    assert stored is not None
    assert usage_of(stored[1], stored[0], UNIT).end_us == NINE * 10**6


@pytest.mark.parametrize("blank", ["", "  ", None, "\0"])
def test_a_blank_time_counts_as_absent(blank: Any) -> None:
    assert usage(call(endTime=blank)).end_us == NOON - 1_000_000
    assert usage(call(startTime=blank, endTime=blank)).end_us == NOON


@pytest.mark.parametrize("told", ["yesterday", [NINE], True, -5, "1_795_856_400", "١٧٩٥٨٥٦٤٠٠", float("inf")])
def test_a_malformed_time_is_refused(told: Any) -> None:
    with pytest.raises(InvalidElement):
        usage(call(endTime=told))


@pytest.mark.parametrize("told", ["1_000", " 1 ", "0x1", "١", "1,5", "NaN", "Infinity", "", "+1", "1e", True, [1], {}])
@pytest.mark.parametrize("field", ["spend", "response_cost", "cost_usd", "cost", "precise_total_amount_cents"])
def test_a_text_that_is_no_plain_decimal_number_is_no_amount(field: str, told: Any) -> None:
    with pytest.raises(InvalidElement):
        usage(call(response_cost=None) | {field: told})
    with pytest.raises(Rejected):
        usage_of(raw_value(slp(1) | {"response_cost": None} | {field: told}), "c", UNIT)


@pytest.mark.parametrize("told", ["0.5", "5e-1", "0.50", 0.5])
def test_a_plain_decimal_number_is_an_amount_as_text_or_number(told: Any) -> None:
    assert usage(call(response_cost=told)).cost == Decimal("0.5")


@pytest.mark.parametrize("field", ["model", "id", "end_user", "call_type", "custom_llm_provider", "key_alias"])
def test_nul_and_lone_surrogates_are_removed_from_every_text(field: str) -> None:
    value = json.dumps(call(**{field: "a\0b\ud800"}))
    stored = strip(value.encode(), FLAT, NOON, CUSTOMER_ID_FIELDS)
    assert stored is not None
    assert b"\\u0000" not in stored[1]
    assert "ab\ufffd" in stored[1].decode()
    older = value.replace("\\ud800", "")
    envelope = {"v": 1, "source": "webhook", "shape": FLAT, "received_at": NOON, "id_kind": "end_user"}
    read = usage_of(f'{json.dumps(envelope)[:-1]},"call":{older}}}'.encode(), "c", UNIT)
    assert "\0" not in f"{read.model}{read.request_id}{read.call_type}{read.provider}{read.key_alias}"


def test_nul_is_removed_from_metered_events() -> None:
    """Lago's database accepts none: the event and the others in its batch would be refused."""
    metered = {"org_id": "o", "transaction_id": "t\0", "code": "c\0", "at": NOON, "properties": {"a\0": "b\0"}}
    record = {"v": 1, "source": "api", "shape": METERED, "received_at": NOON, "id_kind": "org", "call": {}}
    changes = Fold(POLICY, "")(
        LedgerState(Position()),
        [Raw(0, NOON // 1000, b"o", json.dumps({**record, "metered": metered}).encode())],
        subscribed,
    )
    [window] = changes.windows.values()
    assert window.metered is not None
    assert (window.metered.code, window.metered.properties) == ("c", {"a": "b"})


def test_an_unhashed_key_that_an_older_ingress_stored_is_not_passed_on() -> None:
    value = raw_value(slp(1, api_key="AIza-secret", metadata={"user_api_key_hash": "h"}))
    assert usage_of(value, "c", UNIT).key_hash not in ("AIza-secret", "h", "")


def test_a_release_that_does_not_know_the_new_fields_reads_the_record() -> None:
    stored = strip(json.dumps(call(total_tokens="15", cache_hit=1)).encode(), INTEGRATION, NOON, CUSTOMER_ID_FIELDS)
    assert stored is not None
    record = msgspec.json.decode(stored[1], type=RawRecord)
    assert (record.v, record.call.total_tokens, record.call.cache_hit) == (1, 15, True)
