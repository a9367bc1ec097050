"""A call without credit is refused before it costs something; while Meterbridge is away the operator's bound in money holds."""

import asyncio
import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbridge_litellm.counts import Counts
from meterbridge_litellm.credit import Credit, Refused
from meterbridge_litellm.settings import Settings

PRICES = {
    "gpt": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07},
    "image": {"input_cost_per_image": 0.04},
}
ADA = SimpleNamespace(user_id="ada", org_id="org_1")
CALL: dict[str, Any] = {"model": "gpt", "litellm_call_id": "call-1", "messages": [{"role": "user", "content": "hello"}]}


class Api:
    """Answers in turn; the last answer is repeated."""

    def __init__(self, *answers: int | type[Exception]) -> None:
        self.answers, self.bodies = list(answers), list[dict[str, Any]]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append({"path": request.url.path, **json.loads(request.content)})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not isinstance(answer, int):
            raise answer("away")
        return httpx.Response(answer, json={"authorized": answer == 200})


def credit(api: Api, counts: Counts | None = None, **given: Any) -> Credit:
    settings = Settings(url="http://m", ring_path="unused", token="t", **given)
    http = httpx.AsyncClient(base_url="http://m", transport=httpx.MockTransport(api))
    return Credit(settings, counts or Counts(), http, PRICES)


async def test_an_estimate_is_set_aside_under_the_calls_own_id() -> None:
    api = Api(200)
    await credit(api).set_aside(ADA, CALL)
    [body] = api.bodies
    assert body.pop("estimate") == "0.000601950000"
    assert body == {"path": "/api/v1/credits/authorize", "account": "user:ada", "ttl": 600, "call_id": "call-1"}


async def test_an_org_pays_where_the_setting_says_so() -> None:
    api = Api(200)
    await credit(api, account="org").set_aside(ADA, CALL)
    assert api.bodies[0]["account"] == "org:org_1"


async def test_without_credit_the_call_is_402() -> None:
    with pytest.raises(Refused) as refused:
        await credit(Api(402), fail="open").set_aside(ADA, CALL)
    assert (refused.value.status, refused.value.reason) == (402, "insufficient_credits")


async def test_asked_too_often_is_429() -> None:
    with pytest.raises(Refused) as refused:
        await credit(Api(429), fail="open").set_aside(ADA, CALL)
    assert refused.value.status == 429


@pytest.mark.parametrize("answer", [400, 409, 422])
async def test_a_question_that_is_wrong_lets_no_call_through(answer: int) -> None:
    """A client writes a part of it: the call id, the length of the answer."""
    with pytest.raises(Refused) as refused:
        await credit(Api(answer), fail="open").set_aside(ADA, CALL)
    assert refused.value.status == 400


async def test_a_client_that_chooses_the_call_id_gets_no_credit() -> None:
    """Else one reservation would serve for many calls: it is known by the call id."""
    api = Api(200)
    with pytest.raises(Refused) as refused:
        await credit(api).set_aside(ADA, {**CALL, "proxy_server_request": {"headers": {"X-LiteLLM-Call-Id": "call-1"}}})
    assert (refused.value.status, refused.value.reason, api.bodies) == (400, "call_id_chosen", [])


@pytest.mark.parametrize("user", [SimpleNamespace(user_id=None), SimpleNamespace(user_id="default_user_id"), None])
async def test_a_key_that_names_nobody_has_no_credit(user: Any) -> None:
    with pytest.raises(Refused) as refused:
        await credit(Api(200)).set_aside(user, CALL)
    assert refused.value.reason == "no_account"


async def test_a_request_without_a_model_is_not_asked_for() -> None:
    api = Api(402)
    await credit(api).set_aside(ADA, {"litellm_call_id": "call-1", "file_id": "file-1"})
    assert api.bodies == []


@pytest.mark.parametrize("answer", [500, 401, 404, httpx.ConnectTimeout, httpx.ReadError])
async def test_while_meterbridge_does_not_authorise_a_closed_proxy_serves_nobody(answer: Any) -> None:
    counts = Counts()
    with pytest.raises(Refused) as refused:
        await credit(Api(answer), counts, fail="closed").set_aside(ADA, CALL)
    assert (refused.value.status, refused.value.reason) == (503, "credit_check_unavailable")
    assert counts.all() == {"refused_unasked": 1}


@given(st.integers(1, 40), st.decimals("0.01", "1", places=2))
def test_an_open_proxy_lets_calls_through_up_to_the_bound_and_never_beyond(calls: int, bound: Decimal) -> None:
    async def let_through() -> int:
        counts = Counts()
        asked = credit(Api(503), counts, fail="open", fail_open_usd=bound, estimate_usd=Decimal("0.05"))
        for _ in range(calls):
            try:
                await asked.set_aside(ADA, {**CALL, "model": "image"})
            except Refused:
                continue
        return counts.all().get("admitted_unasked", 0)

    assert asyncio.run(let_through()) == min(calls, int(bound / Decimal("0.05")))


async def test_an_answer_ends_what_was_let_through_unasked() -> None:
    asked = credit(Api(503, 200, 503), fail="open", fail_open_usd=Decimal("0.05"), estimate_usd=Decimal("0.05"))
    for _ in range(3):
        await asked.set_aside(ADA, {**CALL, "model": "image"})
    with pytest.raises(Refused):
        await asked.set_aside(ADA, {**CALL, "model": "image"})


@pytest.mark.parametrize(
    ("change", "estimate"),
    [
        ({"max_tokens": 100}, "0.000061950000"),
        ({"max_tokens": 100, "n": 2}, "0.000121950000"),
        ({"messages": [], "max_tokens": 0}, "0.000000000001"),
        ({"max_tokens": "many", "n": "many"}, "0.000601950000"),
        ({"model": "image"}, "0.05"),
        ({"model": "unknown"}, "0.05"),
    ],
)
def test_the_estimate_is_what_the_text_and_the_longest_answer_cost(change: dict[str, Any], estimate: str) -> None:
    call = {**CALL, **change}
    assert f"{credit(Api(200)).estimate(call['model'], call):f}" == estimate
