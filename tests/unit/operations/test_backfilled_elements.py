"""What a backfill reads of an element before it asks the usage log."""

import json
from typing import Any, cast

import pytest

from connectors.config.connections import deployment_of
from connectors.config.settings import load_settings
from connectors.operations.backfill import Backfill
from connectors.postgres.pool import Database
from schemas.wire import FLAT

CALL = {"id": "r", "litellm_call_id": "c", "end_user": "acme", "spend": 1}


@pytest.mark.parametrize("times", [{}, {"startTime": None}, {"startTime": ""}, {"startTime": "", "timestamp": ""}])
def test_an_empty_start_is_no_start(times: dict[str, Any]) -> None:
    """Such an element would have the time of the backfill, and be billed a second time: the log has it in the past."""
    backfill = Backfill(deployment_of(load_settings({})), cast(Database, None), None, FLAT)
    found = backfill._read("line 1", json.dumps({**CALL, **times}).encode())
    timed = backfill._read("line 2", json.dumps({**CALL, **times, "startTime": "2026-11-20T12:00:00Z"}).encode())
    assert found is not None and timed is not None
    assert (found.timeless, timed.timeless) == (True, False)
