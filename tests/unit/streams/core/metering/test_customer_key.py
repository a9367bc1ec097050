"""Kafka's key, the customer of a call: for recorded and for written bodies."""

import csv
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ingest.body_splitter import split
from connectors.ingest.raw_record import strip
from schemas.customer_id import UNATTRIBUTED, normalise_customer_id
from schemas.wire import CLOUDEVENT, FLAT, INTEGRATION, LAGO, SLP, Call, CloudEvent, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS, customer_of, shape_of
from streams.core.metering.tolerant_reader import clean

FIXTURES = Path(__file__).parents[4] / "fixtures" / "litellm"
EXPECTED = list(csv.DictReader((FIXTURES / "expected.csv").open(encoding="utf-8")))
ALL_NAMED = {
    "end_user": "e",
    "user": "u",
    "team_id": "t",
    "organization_id": "o",
    "api_key": "k",
}


def _call(json: str) -> Call:
    return msgspec.json.decode(json, type=Call)


@pytest.mark.parametrize("name", sorted({row["file"] for row in EXPECTED}))
def test_a_recorded_call_has_its_customer(name: str) -> None:
    elements = split((FIXTURES / name).read_bytes())
    rows = [row for row in EXPECTED if row["file"] == name]
    assert len(rows) == len(elements)
    for row in rows:
        stored = strip(elements[int(row["element"])], FLAT, 0, CUSTOMER_ID_FIELDS)
        assert stored is not None
        record = msgspec.json.decode(stored[1], type=RawRecord)
        assert (stored[0], record.id_kind) == (normalise_customer_id(row["customer_id"]), row["id_kind"])
        assert record.shape == SLP


@given(st.permutations(CUSTOMER_ID_FIELDS), st.data())
def test_the_first_field_with_a_value_names_the_customer(fields: list[str], data: st.DataObject) -> None:
    """Any set of fields may be absent, in every way in which senders write an absent value."""
    present = data.draw(st.sets(st.sampled_from(list(ALL_NAMED))))
    absent = st.sampled_from([None, "", "  ", "\0"])
    call = Call(**{name: value if name in present else data.draw(absent) for name, value in ALL_NAMED.items()})
    kinds = dict(zip(CUSTOMER_ID_FIELDS, ALL_NAMED, strict=True))
    named = [kind for kind in fields if kinds[kind] in present]
    expected = (ALL_NAMED[kinds[named[0]]], named[0]) if named else (UNATTRIBUTED, "unattributed")
    assert customer_of(FLAT, call, tuple(fields)) == expected


@pytest.mark.parametrize(
    ("call", "customer"),
    [
        ('{"end_user":"","metadata":{"user_api_key_end_user_id":"m"}}', ("m", "end_user")),
        ('{"end_user":null,"metadata":{"user_api_key_user_id":"u","user_api_key_team_id":"t"}}', ("u", "user")),
        ('{"metadata":{"user_api_key_team_id":"t","user_api_key_org_id":"o"}}', ("t", "team")),
        ('{"metadata":{"user_api_key_org_id":"o","user_api_key_hash":"h"}}', ("o", "organization")),
        ('{"metadata":{"user_api_key_hash":"h"}}', ("h", "key")),
        ('{"user":"customer_id","user_id":"u"}', ("customer_id", "user")),
        ('{"user_id":"u","team_id":"t"}', ("u", "user")),
        ('{"end_user":12345}', ("12345", "end_user")),
        ('{"end_user":0}', ("0", "end_user")),
        ('{"end_user":" cust 1\\n"}', ("cust 1", "end_user")),
        ('{"metadata":null}', (UNATTRIBUTED, "unattributed")),
        ("{}", (UNATTRIBUTED, "unattributed")),
    ],
)
def test_the_order_of_litellms_fields(call: str, customer: tuple[str, str]) -> None:
    assert customer_of(SLP, _call(call), CUSTOMER_ID_FIELDS) == customer


@given(st.text(st.sampled_from("e\u0301\u00e9\0 \u1100\u1161\ud800sk-x"), max_size=9))
def test_an_id_has_one_spelling_wherever_and_however_often_it_is_normalised(text: str) -> None:
    """Some readers remove NUL first, because no database stores it: the mapping's key must be the call's."""
    once = normalise_customer_id(text)
    assert normalise_customer_id(once) == once
    assert normalise_customer_id(clean(text)) == once


def test_a_long_id_is_hashed_like_everywhere_else() -> None:
    long = "c" * 700
    assert customer_of(FLAT, Call(end_user=long), CUSTOMER_ID_FIELDS) == (normalise_customer_id(long), "end_user")


def test_the_other_shapes_name_their_customer_directly() -> None:
    call = Call(customer_id="c", external_subscription_id="s", end_user="e", cloud_event=CloudEvent(subject="j"))
    assert customer_of(INTEGRATION, call, CUSTOMER_ID_FIELDS) == ("c", "customer")
    assert customer_of(LAGO, call, CUSTOMER_ID_FIELDS) == ("s", "subscription")
    assert customer_of(CLOUDEVENT, call, CUSTOMER_ID_FIELDS) == ("j", "customer")
    assert customer_of(CLOUDEVENT, Call(cloud_event=CloudEvent(subject=" ")), ())[1] == "unattributed"
    assert customer_of(CLOUDEVENT, Call(end_user="e"), CUSTOMER_ID_FIELDS) == (UNATTRIBUTED, "unattributed")


@pytest.mark.parametrize("shape", [INTEGRATION, LAGO, FLAT, SLP])
def test_a_call_without_the_name_of_its_shape_gets_the_customer_of_its_other_fields(shape: str) -> None:
    assert customer_of(shape, Call(end_user="e"), CUSTOMER_ID_FIELDS) == ("e", "end_user")
    assert customer_of(shape, Call(customer_id="c", user="u"), CUSTOMER_ID_FIELDS) == ("c", "customer")


@pytest.mark.parametrize(
    ("call", "otherwise", "shape"),
    [
        ('{"user":"c","spend":0.1}', FLAT, FLAT),
        ('{"spend":0.1,"metadata":{}}', FLAT, FLAT),
        ('{"response_cost":0.1}', FLAT, SLP),
        ('{"metadata":{}}', INTEGRATION, SLP),
        ('{"customer_id":"c","total_tokens":1}', FLAT, INTEGRATION),
        ('{"cost_usd":0}', FLAT, INTEGRATION),
        ('{"event_type":"usage"}', INTEGRATION, INTEGRATION),
        ('{"id":"x"}', FLAT, FLAT),
        ('{"external_subscription_id":"s","transaction_id":"t"}', FLAT, LAGO),
        ('{"external_subscription_id":"s","transaction_id":"t","id":"x"}', FLAT, FLAT),
        ('{"id":"x","response_cost":1}', LAGO, SLP),
        ('{"customer_id":"c","spend":1,"response_cost":1}', LAGO, LAGO),
        ('{"cloud_event":{},"customer_id":"c"}', CLOUDEVENT, CLOUDEVENT),
    ],
)
def test_a_shape_is_recognised_by_its_fields_and_lagos_by_its_route(call: str, otherwise: str, shape: str) -> None:
    assert shape_of(_call(call), otherwise) == shape


@pytest.mark.parametrize(
    ("call", "customer"),
    [
        ('{"metadata":{"user_api_key_user_id":"default_user_id"}}', (UNATTRIBUTED, "unattributed")),
        (
            '{"metadata":{"user_api_key_user_id":"default_user_id","user_api_key_hash":"litellm_proxy_master_key"}}',
            (UNATTRIBUTED, "unattributed"),
        ),
        ('{"user":"default_user_id","team_id":"t"}', ("t", "team")),
        ('{"user":" default_user_id ","user_id":"u"}', ("u", "user")),
        ('{"end_user":"default_user_id"}', ("default_user_id", "end_user")),
    ],
)
def test_the_user_of_the_master_key_is_no_customer(call: str, customer: tuple[str, str]) -> None:
    """LiteLLM itself names this user; an end user of that name was chosen by the client."""
    assert customer_of(SLP, _call(call), CUSTOMER_ID_FIELDS) == customer


def test_in_other_callbacks_the_user_of_the_master_key_is_no_customer_either() -> None:
    nobody = (UNATTRIBUTED, "unattributed")
    assert customer_of(LAGO, Call(external_subscription_id="default_user_id"), CUSTOMER_ID_FIELDS) == nobody
    event = Call(cloud_event=CloudEvent(subject="default_user_id"))
    assert customer_of(CLOUDEVENT, event, CUSTOMER_ID_FIELDS) == nobody
