"""Lago's event store decides whether a resend is safe: it is asked for, assumed only if Lago can never tell, and asked
for again.
"""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from structlog.testing import capture_logs

from connectors.lago.client import LagoClient
from connectors.lago.event_store import AGAIN_S, ASKED_S, OrganizationInfo
from tests.support.virtual_time import run_virtually

Answers = Callable[[str], httpx.Response]


def lago(store: str | None = "postgres", version: str = "v1.51.0") -> Answers:
    def answer(path: str) -> httpx.Response:
        if path == "/health":
            return httpx.Response(200, json={"version": version, "message": "Success"})
        return httpx.Response(200, json={"organization": {"lago_id": "1", "events_store": store}})

    return answer


def failing(status: int) -> Answers:
    return lambda _path: httpx.Response(status, json={"code": "some_code"})


def tenant(answers: list[Answers], *, dedup: bool = False, waits: list[float] | None = None) -> OrganizationInfo:
    """Asked as often as there are answers; the seconds between are appended to `waits`."""
    said = iter(answers)
    now = [next(said)]

    async def sleep(seconds: float) -> None:
        if waits is not None:
            waits.append(seconds)
        following = next(said, None)
        if following is None:
            raise asyncio.CancelledError
        now[0] = following

    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: now[0](request.url.path)))
    asked = OrganizationInfo(LagoClient(http, "http://lago", "key"), dedup, sleep)

    async def watch() -> None:
        await asyncio.wait([asyncio.ensure_future(asked.watch())])

    run_virtually(watch())
    return asked


@pytest.mark.parametrize(
    ("store", "dedup", "safe"),
    [("postgres", False, True), (None, False, True), ("clickhouse", False, False), ("clickhouse", True, True)],
)
def test_the_event_store_decides_whether_a_resend_is_safe(store: str | None, *, dedup: bool, safe: bool) -> None:
    assert tenant([lago(store)], dedup=dedup).resend_is_safe() is safe


def test_as_long_as_the_event_store_is_unknown_an_event_is_looked_up_before_a_resend() -> None:
    """A Lago that was unavailable when the worker started may be one that bills a repeat twice."""
    waits: list[float] = []
    unknown = tenant([failing(500), failing(401), failing(429)], waits=waits)
    assert (unknown.store, unknown.resend_is_safe(), unknown.too_old()) == ("", False, False)
    assert waits == [AGAIN_S] * 3


@pytest.mark.parametrize("status", [403, 404])
def test_if_the_key_may_not_ask_lagos_default_store_is_assumed(status: int) -> None:
    assert tenant([failing(status)]).resend_is_safe()


def test_a_known_event_store_stays_known_while_lago_is_unavailable() -> None:
    waits: list[float] = []
    known = tenant([lago("clickhouse"), failing(503), failing(403)], waits=waits)
    assert (known.store, known.resend_is_safe(), known.version) == ("clickhouse", False, "v1.51.0")
    assert waits == [ASKED_S, AGAIN_S, ASKED_S]


def test_a_lago_that_moved_to_clickhouse_is_noticed_within_the_hour() -> None:
    assert not tenant([lago("postgres"), lago("clickhouse")]).resend_is_safe()


def test_a_lago_before_1_39_is_recognised() -> None:
    with capture_logs() as said:
        assert tenant([lago(version="v1.38.0"), lago(version="v1.38.0")]).too_old()
    assert [one["event"] for one in said] == ["lago_too_old"]
    assert not tenant([lago(version="v1.38.0"), lago(version="v1.39.0")]).too_old()
    assert not tenant([lago(version="production")]).too_old()


def test_an_unavailable_lago_is_logged_once_for_each_cause() -> None:
    with capture_logs() as lines:
        tenant([failing(500), failing(500), failing(401), failing(401), lago(), failing(401), failing(401)])
    result = [line["reason"] for line in lines if line["event"] == "event_store_unknown"]
    assert result == ["http_500", "http_401", "http_401"]
    assert {line["address"].partition("=")[0] for line in lines if line["event"] == "event_store_unknown"} == {
        "LAGO_API_URL"
    }


def test_a_key_that_may_not_ask_is_logged_once() -> None:
    with capture_logs() as lines:
        tenant([failing(403), failing(403), failing(403)])
    assert [line["event"] for line in lines] == ["event_store_assumed"]
