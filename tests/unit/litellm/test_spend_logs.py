"""A row of LiteLLM's database as a call: what its callbacks have beside the metadata, the row has in them."""

import io
import json
from datetime import datetime
from typing import Any

import msgspec
import pytest

from connectors.ingest.raw_record import strip
from connectors.litellm.spend_logs import _element, _query
from connectors.operations.call_files import csv_rows
from schemas.wire import BACKFILL, FLAT, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from tests.support.calls import NOON


def row(metadata: Any) -> dict[str, Any]:
    moment = datetime(2026, 11, 20, 12)
    return {"request_id": "r", "spend": "0.00459", "startTime": moment, "endTime": moment, "metadata": metadata}


def test_the_breakdown_of_the_cost_is_read_from_the_metadata() -> None:
    costs = {"total_cost": 0.00459, "additional_costs": {"mid_stream_partial_cost": 0.00209}}
    assert msgspec.json.decode(_element(row(json.dumps({"cost_breakdown": costs}))))["cost_breakdown"] == costs


def test_a_row_without_a_breakdown_has_none() -> None:
    for metadata in (None, "{}", '{"cost_breakdown": null}', '{"cost_breakdown": "x"}', "["):
        assert "cost_breakdown" not in msgspec.json.decode(_element(row(metadata)))


@pytest.mark.parametrize(
    ("metadata", "tags", "level"),
    [
        ({"spend_logs_metadata": {"power_level": "eco", "note": "a prompt"}}, None, "eco"),
        ({"power_level": "Eco"}, ["power:precision"], "eco"),
        ({}, ["User-Agent: curl", "power:precision"], "precision"),
        ({"spend_logs_metadata": None}, [], ""),
        ({}, None, ""),
    ],
)
def test_a_backfilled_call_is_priced_by_its_power_level_like_the_lost_webhook(
    metadata: dict[str, Any], tags: list[str] | None, level: str
) -> None:
    of_table = {**row(json.dumps(metadata)), "request_tags": None if tags is None else json.dumps(tags)}
    stored = strip(_element(of_table), FLAT, NOON, CUSTOMER_ID_FIELDS, BACKFILL)
    assert stored is not None
    assert msgspec.json.decode(stored[1], type=RawRecord).power_level == level
    assert b"prompt" not in stored[1]


def test_the_tags_are_read_if_the_table_has_them() -> None:
    needed = dict.fromkeys(("request_id", "spend", "startTime"), "text")
    assert '"request_tags"' in _query({**needed, "request_tags": "jsonb"})
    assert "request_tags" not in _query(needed)


@pytest.mark.parametrize("as_text", [False, True], ids=["object", "text"])
@pytest.mark.parametrize(
    "metadata", [{"power_level": "eco"}, {"spend_logs_metadata": {"power_level": "eco"}}], ids=["own", "of the log"]
)
def test_an_export_with_metadata_as_text_has_the_same_power_level(metadata: dict[str, Any], as_text: bool) -> None:
    call = {"id": "r", "spend": 1, "end_user": "c", "metadata": json.dumps(metadata) if as_text else metadata}
    stored = strip(json.dumps(call).encode(), FLAT, NOON, CUSTOMER_ID_FIELDS, BACKFILL)
    assert stored is not None
    assert msgspec.json.decode(stored[1], type=RawRecord).power_level == "eco"


def test_an_export_as_csv_has_the_power_level_of_its_tags_and_of_its_metadata() -> None:
    file = io.BytesIO(
        b"request_id,spend,end_user,request_tags,metadata\n"
        b'a,1,c,"[""power:eco""]",\n'
        b'b,1,c,"[""User-Agent: curl""]","{""spend_logs_metadata"": {""power_level"": ""precision""}}"\n'
        b"d,1,c,,\n"
    )
    levels = []
    for _, element in csv_rows(file):
        stored = strip(element, FLAT, NOON, CUSTOMER_ID_FIELDS, BACKFILL)
        assert stored is not None
        levels.append(msgspec.json.decode(stored[1], type=RawRecord).power_level)
    assert levels == ["eco", "precision", ""]
