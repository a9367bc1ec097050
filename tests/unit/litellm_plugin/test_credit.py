"""A call without credit is refused before it costs anything; while Meterbridge is unavailable the operator's limit in
money applies.
"""

import asyncio
import contextlib
import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterbridge_litellm.asking import Asking
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.credit import Credit
from meterbridge_litellm.http_clients import AsyncHttp
from meterbridge_litellm.refusal import Refused, Unasked
from meterbridge_litellm.settings import PluginSettings

PRICES = {
    "gpt": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07},
    "image": {"input_cost_per_image": 0.04},
}
ADA = SimpleNamespace(user_id="ada", org_id="org_1")
CALL: dict[str, Any] = {"model": "gpt", "litellm_call_id": "call-1", "messages": [{"role": "user", "content": "hello"}]}


class Api:
    """Answers one after the other; the last answer is repeated."""

    def __init__(self, *answers: int | type[Exception]) -> None:
        self.answers, self.bodies = list(answers), list[dict[str, Any]]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append({"path": request.url.path, **json.loads(request.content)})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not isinstance(answer, int):
            raise answer("away")
        return httpx.Response(answer, json={"authorized": answer == 200, "reservation_id": "r-1"})


class CreditOfProxy:
    """Credit for one proxy, with a clock that the test sets."""

    def __init__(self, api: Api, counts: Counts | None = None, **given: Any) -> None:
        settings, self.now = PluginSettings(url="http://m", ring_path="unused", token="t", **given), 1000.0
        counts = counts or Counts()
        http = httpx.AsyncClient(base_url="http://m", transport=httpx.MockTransport(api))
        self.credit = Credit(Asking(settings, counts, Unasked(settings, counts, lambda: self.now), http), PRICES)

    async def set_aside(self, user: Any, data: dict[str, Any], call_id: str = "call-1") -> str:
        return await self.credit.set_aside(user, data, call_id)


credit = CreditOfProxy


async def test_an_estimate_is_reserved_under_the_calls_own_id() -> None:
    api = Api(200)
    assert await credit(api).set_aside(ADA, CALL) == "r-1"
    [body] = api.bodies
    assert body.pop("estimate") == "0.000601950000"
    assert body == {"path": "/api/v1/credits/authorize", "account": "user:ada", "ttl": 600, "call_id": "call-1"}


async def test_an_org_pays_if_the_setting_says_so() -> None:
    api = Api(200)
    await credit(api, account="org").set_aside(ADA, CALL)
    assert api.bodies[0]["account"] == "org:org_1"


async def test_a_call_without_credit_is_answered_402() -> None:
    with pytest.raises(Refused) as refused:
        await credit(Api(402), fail="open").set_aside(ADA, CALL)
    assert (refused.value.status, refused.value.reason) == (402, "insufficient_credits")


@pytest.mark.parametrize("answer", [400, 409, 422])
async def test_a_malformed_request_for_credit_lets_no_call_through(answer: int) -> None:
    """The client controls a part of it: the call id, the length of the answer."""
    with pytest.raises(Refused) as refused:
        await credit(Api(answer), fail="open").set_aside(ADA, CALL)
    assert refused.value.status == 400


@pytest.mark.parametrize("user", [SimpleNamespace(user_id=None), SimpleNamespace(user_id="default_user_id"), None])
async def test_a_key_that_names_no_user_or_org_has_no_credit(user: Any) -> None:
    with pytest.raises(Refused) as refused:
        await credit(Api(200)).set_aside(user, CALL)
    assert refused.value.reason == "no_account"


@pytest.mark.parametrize("answer", [500, 401, 404, 429, 201, httpx.ConnectTimeout, httpx.ReadError])
async def test_while_meterbridge_is_unavailable_a_proxy_set_to_closed_refuses_calls(answer: Any) -> None:
    counts = Counts()
    with pytest.raises(Refused) as refused:
        await credit(Api(answer), counts, fail="closed").set_aside(ADA, CALL)
    assert (refused.value.status, refused.value.reason) == (503, "credit_check_unavailable")
    assert counts.all() == {"refused_unasked": 1}


async def test_a_reservation_that_cannot_be_given_back_because_of_a_reset_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On uvloop, which proxies use, anyio raises AttributeError for a connection that is reset while it is opened."""

    def reset(_: httpx.Request) -> httpx.Response:
        None.getpeername()  # type: ignore[attr-defined]

    asked = credit(Api(200)).credit
    asked._http = AsyncHttp(1.0, base_url="http://m", transport=httpx.MockTransport(reset))
    await asked.give_back("r-1")
    await asked._give_back_unknown({"call_id": "call-1"})
    assert "reservation_not_given_back" in caplog.text


@given(st.integers(1, 40), st.decimals("0.01", "1", places=2))
def test_while_meterbridge_is_unavailable_a_proxy_set_to_open_lets_calls_through_up_to_the_limit(
    calls: int, bound: Decimal
) -> None:
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


async def test_one_account_cannot_use_up_the_limit_of_all() -> None:
    """For example a client without credit that sends so many requests that its own answers arrive too late."""
    counts = Counts()
    asked = credit(
        Api(503),
        counts,
        fail="open",
        fail_open_usd=Decimal("0.50"),
        fail_open_account_usd=Decimal("0.20"),
        estimate_usd=Decimal("0.05"),
    )
    for _ in range(50):
        with contextlib.suppress(Refused):
            await asked.set_aside(ADA, {**CALL, "model": "image"})
    assert counts.all() == {"admitted_unasked": 4, "refused_unasked": 46}
    for name in ("bob", "zoe", "eve"):
        for _ in range(4):
            with contextlib.suppress(Refused):
                await asked.set_aside(SimpleNamespace(user_id=name), {**CALL, "model": "image"})
    assert counts.all() == {"admitted_unasked": 10, "refused_unasked": 52}


async def test_successful_answers_between_errors_do_not_reset_the_limit() -> None:
    """Otherwise a proxy that gets 429 for each second request would let any number of calls through."""
    counts = Counts()
    asked = credit(Api(*[200, 429] * 100), counts, fail="open", fail_open_usd=Decimal("0.20"))
    for _ in range(100):
        with contextlib.suppress(Refused):
            await asked.set_aside(ADA, {**CALL, "model": "image"})
        asked.now += 0.1
    assert counts.all() == {"admitted_unasked": 4, "refused_unasked": 46}


@pytest.mark.parametrize(("answered_after_s", "free"), [(599, False), (640, True)])
async def test_the_used_limit_is_released_when_meterbridge_answers_after_the_lifetime_of_a_reservation(
    answered_after_s: float, free: bool
) -> None:
    counts = Counts()
    asked = credit(Api(503, 200, 503), counts, fail="open", fail_open_usd=Decimal("0.05"))
    await asked.set_aside(ADA, {**CALL, "model": "image"})
    asked.now += answered_after_s
    await asked.set_aside(ADA, {**CALL, "model": "image"})
    with contextlib.nullcontext() if free else pytest.raises(Refused):
        await asked.set_aside(ADA, {**CALL, "model": "image"})
    asked.now += 1_000_000
    with pytest.raises(Refused):  # time alone frees nothing
        await asked.set_aside(ADA, {**CALL, "model": "image"})


@given(st.lists(st.tuples(st.floats(0, 300), st.sampled_from([200, 503, 429, 402])), max_size=80))
def test_the_sum_of_calls_without_an_answer_is_within_the_limit_at_any_time(steps: list[tuple[float, int]]) -> None:
    async def admitted() -> list[float]:
        counts, moments = Counts(), list[float]()
        asked = credit(Api(*[status for _, status in steps], 200), counts, fail="open", fail_open_usd=Decimal("0.15"))
        for pause_s, _ in steps:
            asked.now += pause_s
            before = counts.all().get("admitted_unasked", 0)
            with contextlib.suppress(Refused):
                await asked.set_aside(ADA, {**CALL, "model": "image"})
            if counts.all().get("admitted_unasked", 0) > before:
                moments.append(asked.now)
        return moments

    moments = asyncio.run(admitted())
    assert all(sum(0 <= later - moment < 600 for later in moments) <= 3 for moment in moments)


@pytest.mark.parametrize(("fail", "let_through"), [("open", 1), ("closed", 0)])
async def test_a_call_without_an_id_follows_the_same_setting_and_makes_no_request(fail: str, let_through: int) -> None:
    """No record could settle its reservation."""
    api, counts = Api(200), Counts()
    asked = credit(api, counts, fail=fail, fail_open_usd=Decimal("0.05"))
    for _ in range(2):
        with contextlib.suppress(Refused):
            assert await asked.set_aside(ADA, {**CALL, "model": "image"}, "") == ""
    assert counts.all().get("admitted_unasked", 0) == let_through
    assert counts.all()["refused_unasked"] == 2 - let_through
    assert api.bodies == []


async def test_a_failed_call_releases_its_reservation(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, str]] = []

    def api(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.path))
        return httpx.Response(200 if len(seen) == 1 else 500)

    settings, counts = PluginSettings(url="http://m", ring_path="unused", token="t"), Counts()
    http = httpx.AsyncClient(base_url="http://m", transport=httpx.MockTransport(api))
    giving = Credit(Asking(settings, counts, Unasked(settings, counts), http), PRICES)
    await giving.give_back("r-1")
    await giving.give_back("r-2")
    assert seen == [("DELETE", f"/api/v1/credits/authorize/r-{number}") for number in (1, 2)]
    assert counts.all() == {"released": 1}
    assert "reservation_not_given_back" in caplog.text


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_late_answer_for_a_call_that_was_not_made_reserves_no_credit(cancelled: bool) -> None:
    """Otherwise each late answer of a slow Meterbridge would block a user's credits for ten minutes."""
    seen: list[tuple[str, Any]] = []
    begun = asyncio.Event()

    async def api(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, json.loads(request.content) if request.content else request.url.path))
        if len(seen) == 1:
            begun.set()
            if cancelled:
                await asyncio.sleep(60)
            raise httpx.ReadTimeout("late")
        return httpx.Response(200, json={"authorized": True, "reservation_id": "r-1"})

    settings, counts = PluginSettings(url="http://m", ring_path="unused", token="t"), Counts()
    http = httpx.AsyncClient(base_url="http://m", transport=httpx.MockTransport(api))
    asked = Credit(Asking(settings, counts, Unasked(settings, counts), http), PRICES)
    asking = asyncio.create_task(asked.set_aside(ADA, CALL, "call-1"))
    await begun.wait()
    if cancelled:
        asking.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else Refused):
        await asking
    await asyncio.gather(*asked._late)
    assert seen[0] == seen[1], "the same question has the same answer"
    assert seen[2:] == [("DELETE", "/api/v1/credits/authorize/r-1")]
    assert counts.all()["released"] == 1


async def test_a_call_that_went_on_without_an_answer_keeps_a_late_reservation() -> None:
    """The call's record settles it."""
    api = Api(httpx.ReadTimeout, 200)
    asked = credit(api, fail="open")
    assert await asked.set_aside(ADA, CALL) == ""
    assert not asked.credit._late


@pytest.mark.parametrize(
    ("change", "estimate"),
    [
        ({"max_tokens": 100}, "0.000061950000"),
        ({"max_tokens": 100, "n": 2}, "0.000121950000"),
        ({"messages": [], "max_tokens": 0}, "0.000000000001"),
        ({"max_tokens": "many", "n": "many"}, "0.000601950000"),
        ({"max_tokens": 10**400, "n": 10**400}, "600000000.000001950000"),
        ({"model": "image"}, "0.05"),
        ({"model": "unknown"}, "0.05"),
        ({"model": None}, "0.05"),
    ],
)
def test_the_estimate_is_the_cost_of_the_text_and_the_longest_answer(change: dict[str, Any], estimate: str) -> None:
    call = {**CALL, **change}
    assert f"{credit(Api(200)).credit.estimate(call):f}" == estimate


async def test_a_request_that_is_nested_so_deeply_that_its_text_cannot_be_measured_is_refused() -> None:
    tools: list[Any] = []
    for _ in range(20_000):
        tools = [tools]
    with pytest.raises(Refused) as refused:
        await credit(Api(200), fail="open").set_aside(ADA, {**CALL, "tools": tools})
    assert (refused.value.status, refused.value.reason) == (400, "credit_question_refused")
