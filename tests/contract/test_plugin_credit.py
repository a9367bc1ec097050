"""The plugin's request for credit is valid for the management API."""

import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from connectors.api.credit_models import AuthorizeBody
from connectors.api.credits import PATH
from meterbridge_litellm.asking import Asking
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.credit import Credit
from meterbridge_litellm.refusal import Unasked
from meterbridge_litellm.settings import PluginSettings

PRICES = {
    "gpt": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07},
    "dear": {"input_cost_per_token": 9e3},
}


@pytest.mark.parametrize("model", ["gpt", "dear", "unknown"])
@pytest.mark.parametrize("account", ["user", "org"])
async def test_the_request_is_valid(model: str, account: str) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"authorized": True, "reservation_id": "r-1", "available": "9"})

    settings = PluginSettings(url="http://m", ring_path="unused", token="t", account=account)
    http = httpx.AsyncClient(base_url="http://m", transport=httpx.MockTransport(answer))
    call: dict[str, Any] = {"model": model, "messages": [{"content": "x" * 1000}]}
    counts = Counts()
    credit = Credit(Asking(settings, counts, Unasked(settings, counts), http), PRICES)
    await credit.set_aside(SimpleNamespace(user_id="ada", org_id="org_1"), call, "call-1")
    [request] = asked
    body = AuthorizeBody.model_validate(json.loads(request.content))
    assert request.url.path == f"{PATH}/authorize"
    assert body.named == {"user": "user:ada", "org": "org:org_1"}[account]
    assert body.call_id == "call-1"
