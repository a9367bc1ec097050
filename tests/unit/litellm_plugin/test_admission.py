"""Before a call: for which calls Meterbridge is asked for credit, and what happens to the call's id, power level and
key.
"""

import json
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from meterbridge_litellm.admission import Admission
from meterbridge_litellm.calls import CallDecision, Calls, call_id_of, may_cost
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.refusal import Refused
from meterbridge_litellm.settings import PluginSettings

ADA = SimpleNamespace(user_id="ada", org_id="org_1", team_id=None, metadata={})
KEY = "sk-of-ada-0123456789"
MARKED = [{"model_info": {"own_key_provider": "openai"}}]


class Meterbridge:
    """The management API: credit for every user, a key of ada, and two power levels."""

    def __init__(self) -> None:
        self.asked = list[str]()
        self.key: str | None = KEY
        self.status: int | type[Exception] = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.rpartition("/")[2]
        self.asked.append(path)
        if not isinstance(self.status, int):
            raise self.status("away")
        if self.status:
            return httpx.Response(self.status, json={"reason": "away"})
        if path == "authorize":
            return httpx.Response(200, json={"authorized": True, "reservation_id": "r-1"})
        if path == "resolve":
            body = json.loads(request.content)
            if self.key is None or body["user_id"] != "ada":
                return httpx.Response(404, json={"reason": "no_provider_key"})
            return httpx.Response(200, json={**body, "api_key": self.key})
        levels = [
            {"power_level": "eco", "provider_order": ["openai", "anthropic"]},
            {"power_level": "precision", "provider_order": ["anthropic"]},
        ]
        return httpx.Response(200, json={"power_levels": levels})


def admission(there: Meterbridge, counts: Counts | None = None, deployments: Any = MARKED, **given: Any) -> Admission:
    settings = PluginSettings(url="http://m", ring_path="unused", token="t", api_key="k", **given)
    http = httpx.AsyncClient(base_url="http://m", transport=httpx.MockTransport(there))
    return Admission(settings, counts or Counts(), http, {}, lambda _model, _team: deployments)


def call(**more: Any) -> dict[str, Any]:
    return {"model": "gpt-5", "messages": [], "litellm_call_id": "call-1", **more}


@pytest.fixture
def levels(tmp_path: Path) -> str:
    file = {
        "eco": {"models": {"gpt-5": {"anthropic": "haiku", "openai": "gpt-5-nano"}}, "params": {"max_tokens": 7}},
        "precision": {"models": {"*": {"openai": "gpt-5-pro", "anthropic": "opus"}}},
        "careful": {"params": {"temperature": 0}},
    }
    (tmp_path / "levels.json").write_text(json.dumps(file))
    return str(tmp_path / "levels.json")


async def known(made: Admission) -> None:
    """Lets it ask which power levels exist."""
    assert made._levels is not None
    made._levels._refresh()
    assert made._levels._asking is not None
    await made._levels._asking


# which calls, and their id


@pytest.mark.parametrize(
    ("data", "call_type", "costs"),
    [
        ({"model": "gpt"}, "acompletion", True),
        ({}, "acreate_file", False),
        ({"model": "gpt"}, "aretrieve_batch", False),
        ({}, "pass_through_endpoint", True),
        ({}, "acreate_batch", True),
        ({}, "avideo_remix", True),
        ({}, "alist_containers", False),
        ({"model": "gpt-realtime"}, "_arealtime", True),
    ],
)
async def test_calls_that_may_cost_something_need_credit(data: dict[str, Any], call_type: str, costs: bool) -> None:
    assert may_cost(data, call_type) is costs
    there = Meterbridge()
    await admission(there, authorize="on").admit(ADA, {**data, "litellm_call_id": "x"}, call_type)
    assert there.asked == ["authorize"] * costs


async def test_a_pass_through_call_gets_litellms_call_id_and_never_one_from_the_client() -> None:
    data = {"litellm_call_id": "chosen", "litellm_logging_obj": SimpleNamespace(litellm_call_id="litellms-own")}
    assert call_id_of(data) == "litellms-own"
    assert call_id_of({"litellm_call_id": "a", "litellm_logging_obj": {"litellm_call_id": "written"}}) == "a"
    assert call_id_of({"litellm_logging_obj": {"litellm_call_id": "written"}}) == ""


async def test_a_client_that_chooses_the_call_id_is_refused() -> None:
    """Otherwise one reservation would serve many calls, because it is identified by the call id."""
    there = Meterbridge()
    data = call(proxy_server_request={"headers": {"X-LiteLLM-Call-Id": "call-1"}})
    with pytest.raises(Refused) as refused:
        await admission(there, authorize="on").admit(ADA, data, "acompletion")
    assert (refused.value.status, refused.value.reason, there.asked) == (400, "call_id_chosen", [])


def test_a_decision_is_kept_until_a_minute_after_the_end_of_the_call() -> None:
    now = [0.0]
    calls, decided = Calls(lambda: now[0]), CallDecision(own_key=True)
    calls.begin("a", decided)
    assert calls.end("a") is decided
    now[0] = 59
    assert calls.end("other") is None and calls.of("a") is decided
    now[0] = 61
    calls.end("other")
    assert calls.of("a") is None


def test_calls_that_never_end_are_forgotten() -> None:
    calls = Calls()
    for number in range(50_010):
        calls.begin(str(number), CallDecision())
    assert calls.of("9") is None and calls.of("10") is not None


# the user's own key


async def test_the_users_key_is_in_the_request_and_no_fallback_gets_another_key() -> None:
    data, there = call(fallbacks=["other"], context_window_fallbacks=[{}]), Meterbridge()
    decided = await admission(there, own_keys="billed").admit(ADA, data, "acompletion")
    assert decided.own_key and data["api_key"] == KEY and data["disable_fallbacks"] is True
    assert "fallbacks" not in data and "context_window_fallbacks" not in data


@pytest.mark.parametrize(
    ("change", "call_type", "deployments"),
    [
        ({"api_key": "sk-own"}, "acompletion", MARKED),
        ({"api_base": "http://elsewhere"}, "acompletion", MARKED),
        ({"background": True}, "aresponses", MARKED),
        ({}, "moderation", MARKED),
        ({}, "pass_through_endpoint", MARKED),
        ({"model": ["a"]}, "acompletion", MARKED),
        ({"litellm_call_id": None}, "acompletion", MARKED),
        ({}, "acompletion", []),
        ({}, "acompletion", [*MARKED, {"model_info": {}}]),
        ({}, "acompletion", [*MARKED, {}]),
        ({}, "acompletion", [*MARKED, {"model_info": {"own_key_provider": "anthropic"}}]),
    ],
)
async def test_a_key_is_sent_only_to_the_address_that_the_operator_configured_for_its_provider(
    change: dict[str, Any], call_type: str, deployments: list[dict[str, Any]]
) -> None:
    data, there = call(**change), Meterbridge()
    decided = await admission(there, None, deployments, own_keys="billed").admit(ADA, data, call_type)
    assert not decided.own_key and data.get("api_key") in (None, "sk-own") and there.asked == []


@pytest.mark.parametrize("key", [KEY, None])
async def test_an_answer_about_a_key_is_cached_for_the_configured_seconds(
    key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, now = Meterbridge(), [100.0]
    created = admission(there, own_keys="billed", own_key_seconds=5)
    monkeypatch.setattr("meterbridge_litellm.own_keys.time", SimpleNamespace(monotonic=lambda: now[0]))
    there.key = key
    for moment in (100.0, 104.9):
        now[0] = moment
        assert (await created.admit(ADA, call(), "acompletion")).own_key is bool(key)
    assert there.asked == ["resolve"]
    there.key = None if key else KEY
    now[0] = 105.0
    assert (await created.admit(ADA, call(), "acompletion")).own_key is not bool(key)


async def test_a_key_that_is_not_cached_is_requested_for_each_call() -> None:
    there = Meterbridge()
    created = admission(there, own_keys="billed", own_key_seconds=0)
    for _ in range(3):
        await created.admit(ADA, call(), "acompletion")
    assert there.asked == ["resolve"] * 3


async def test_the_answer_for_another_user_is_not_used() -> None:
    """Such an answer may come from a cache between the proxy and Meterbridge."""
    there = Meterbridge()
    created = admission(there, own_keys="billed", fail="closed")
    eve = SimpleNamespace(user_id="eve", team_id=None)
    assert not (await created.admit(eve, call(), "acompletion")).own_key
    assert created._own_keys is not None
    created._own_keys._http = httpx.AsyncClient(
        base_url="http://m",
        transport=httpx.MockTransport(
            lambda _: httpx.Response(200, json={"user_id": "ada", "provider": "openai", "api_key": KEY})
        ),
    )
    created._own_keys._keys.clear()
    with pytest.raises(Refused):
        await created.admit(eve, call(), "acompletion")


@pytest.mark.parametrize("status", [500, 401, 403, 404, 429, httpx.ConnectError])
async def test_while_it_is_unknown_whether_a_user_has_a_key_the_setting_decides(status: Any) -> None:
    """If the operator's key pays for a user who has an own key, the operator bears the risk: the same limit applies."""
    there, counts = Meterbridge(), Counts()
    there.status = status
    with pytest.raises(Refused) as refused:
        await admission(there, own_keys="billed").admit(ADA, call(), "acompletion")
    assert refused.value.status == 503
    created = admission(there, counts, own_keys="billed", fail="open", fail_open_usd=Decimal("0.05"))
    assert not (await created.admit(ADA, call(), "acompletion")).own_key
    with pytest.raises(Refused):
        await created.admit(ADA, call(), "acompletion")
    assert counts.all() == {"admitted_unasked": 1, "refused_unasked": 1}


@pytest.mark.parametrize(("own_keys", "asked"), [("billed", ["resolve", "authorize"]), ("free", ["resolve"])])
async def test_the_setting_decides_whether_a_call_with_an_own_key_needs_credit(own_keys: str, asked: list[str]) -> None:
    there = Meterbridge()
    await admission(there, own_keys=own_keys, authorize="on").admit(ADA, call(), "acompletion")
    assert there.asked == asked


async def test_no_log_line_and_no_error_contains_a_key(caplog: pytest.LogCaptureFixture) -> None:
    there, counts = Meterbridge(), Counts()
    created = admission(there, counts, own_keys="billed", authorize="on", own_key_seconds=0)
    decided = await created.admit(ADA, call(), "acompletion")
    there.status = 500
    with pytest.raises(Refused) as refused:
        await created.admit(ADA, call(), "acompletion")
    assert KEY not in caplog.text + repr(decided) + repr(refused.value) + refused.value.detail + repr(vars(counts))


# power levels


@pytest.mark.parametrize(
    ("asked", "model", "level"),
    [
        ({"proxy_server_request": {"headers": {"X-Power-Level": " ECO "}}}, "gpt-5-nano", "eco"),
        ({"metadata": {"power_level": "eco"}}, "gpt-5-nano", "eco"),
        ({"litellm_metadata": {"power_level": "precision"}}, "opus", "precision"),
        ({"metadata": {"power_level": "eco"}, "model": "other"}, "other", ""),
        ({"metadata": {"tags": ["power:eco"], "spend_logs_metadata": {"power_level": "eco"}}}, "gpt-5", ""),
        ({}, "gpt-5", ""),
    ],
)
async def test_a_power_level_gets_the_model_of_its_first_provider(
    levels: str, asked: dict[str, Any], model: str, level: str
) -> None:
    created = admission(Meterbridge(), levels=levels)
    await known(created)
    data = call(**asked)
    assert (await created.admit(ADA, data, "acompletion")).level == level
    assert data["model"] == model
    assert data.get("max_tokens") == (7 if level == "eco" else None)


@pytest.mark.parametrize("call_type", ["pass_through_endpoint", "acreate_batch", "_arealtime", "avideo_generation"])
async def test_a_call_that_litellm_does_not_route_by_model_has_no_power_level(levels: str, call_type: str) -> None:
    """The body of a pass-through endpoint is the client's."""
    created = admission(Meterbridge(), levels=levels)
    data = call(metadata={"power_level": "eco"}, proxy_server_request={"headers": {"x-power-level": "eco"}})
    assert (await created.admit(ADA, data, call_type)).level == ""
    assert data["model"] == "gpt-5" and "max_tokens" not in data


async def test_a_client_cannot_override_the_power_level_of_its_key(levels: str) -> None:
    created = admission(Meterbridge(), levels=levels)
    pinned = SimpleNamespace(user_id="ada", metadata={"power_level": "eco"})
    assert (await created.admit(pinned, call(metadata={"power_level": "precision"}), "acompletion")).level == "eco"


@pytest.mark.parametrize("asked", ["turbo", "careful", ["eco"], {"eco": 1}, 7, "e" * 100_000])
async def test_an_unknown_level_is_refused(levels: str, asked: Any) -> None:
    """`careful` is in the file but not in Meterbridge, so it has no price."""
    created = admission(Meterbridge(), levels=levels)
    await known(created)
    with pytest.raises(Refused) as refused:
        await created.admit(ADA, call(metadata={"power_level": asked}), "acompletion")
    assert (refused.value.status, refused.value.reason) == (400, "unknown_power_level")


@pytest.mark.parametrize("status", [503, httpx.ConnectError])
async def test_while_meterbridge_does_not_list_the_power_levels_the_file_decides(levels: str, status: Any) -> None:
    there = Meterbridge()
    there.status = status
    created = admission(there, levels=levels)
    await known(created)
    data = call(metadata={"power_level": "precision"})
    assert (await created.admit(ADA, data, "acompletion")).level == "precision"
    assert data["model"] == "gpt-5-pro", "the first of the file"


async def test_the_list_of_power_levels_is_kept_for_ten_times_the_configured_seconds(
    levels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, now = Meterbridge(), [100.0]
    created = admission(there, levels=levels, levels_seconds=60)
    monkeypatch.setattr("meterbridge_litellm.levels.time", SimpleNamespace(monotonic=lambda: now[0]))
    await known(created)
    there.status = 503
    for moment, model in ((150.0, "opus"), (650.0, "opus"), (701.0, "gpt-5-pro")):
        now[0] = moment
        data = call(metadata={"power_level": "precision"})
        await created.admit(ADA, data, "acompletion")
        assert data["model"] == model
        if created._levels._asking is not None:
            await created._levels._asking
    assert there.asked == ["power-levels"] * 3, "at 150 s it is still fresh"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"eco": 1}', '{"Eco!": {}}', '{"eco": {"models": {"a": 1}}}', '{"eco": {"x": 1}}']
)
def test_a_malformed_file_stops_the_proxy_at_its_start_and_is_not_repeated(tmp_path: Path, text: str) -> None:
    (tmp_path / "levels.json").write_text(text)
    with pytest.raises(ValueError, match="METERBRIDGE_LEVELS") as wrong:
        admission(Meterbridge(), levels=str(tmp_path / "levels.json"))
    assert str(tmp_path) not in str(wrong.value)
