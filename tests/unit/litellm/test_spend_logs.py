"""A row of LiteLLM's database as a call: what its callbacks have beside the metadata, the row has in them."""

import json
from datetime import datetime
from typing import Any

import msgspec

from connectors.litellm.spend_logs import _element


def row(metadata: Any) -> dict[str, Any]:
    moment = datetime(2026, 11, 20, 12)
    return {"request_id": "r", "spend": "0.00459", "startTime": moment, "endTime": moment, "metadata": metadata}


def test_the_breakdown_of_the_cost_is_read_from_the_metadata() -> None:
    costs = {"total_cost": 0.00459, "additional_costs": {"mid_stream_partial_cost": 0.00209}}
    assert msgspec.json.decode(_element(row(json.dumps({"cost_breakdown": costs}))))["cost_breakdown"] == costs


def test_a_row_without_a_breakdown_has_none() -> None:
    for metadata in (None, "{}", '{"cost_breakdown": null}', '{"cost_breakdown": "x"}', "["):
        assert "cost_breakdown" not in msgspec.json.decode(_element(row(metadata)))
