"""The sandbox with Lago's rate limits, and as a Lago before batches were stored completely or not at all."""

import asyncio

import httpx

from connectors.lago_sandbox.limits import SandboxLimits
from tests.support.sandbox import Clock, codes, event, lago_sandbox


def limits_of(answer: httpx.Response) -> tuple[str, ...]:
    return tuple(answer.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset"))


async def test_every_answer_shows_the_limit_and_one_request_too_many_is_a_429() -> None:
    async with lago_sandbox(clock=(clock := Clock()), rate_limit=2) as lago:
        assert limits_of(await lago.post(event("a"))) == ("2", "1", "1")
        assert limits_of(await lago.post(event("a"))) == ("2", "0", "1")
        refused = await lago.post(event("b"))
        assert (refused.status_code, limits_of(refused)) == (429, ("2", "0", "1"))
        clock.now += 1
        assert (await lago.post(event("b"))).status_code == 200
        stats = await lago.stats()
        assert (stats["totals"]["events"], stats["limited"]) == (2, 1)


async def test_a_batch_and_a_refusal_each_count_as_one_request() -> None:
    async with lago_sandbox(clock=Clock(), rate_limit=3) as lago:
        assert limits_of(await lago.post(*(event(f"t{n}") for n in range(100))))[1] == "2"
        assert codes(refused := await lago.post(event("x", timestamp="soon")))
        assert limits_of(refused)[1] == "1"
        await lago.fault(kind="status", status=500)
        assert limits_of(await lago.post(event("y")))[1] == "0"


async def test_the_other_endpoints_have_smaller_limits_of_their_own_and_health_has_none() -> None:
    async with lago_sandbox(clock=Clock(), rate_limit=20) as lago:
        answers = [await lago.get("/organizations") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert (await lago.post(event())).status_code == 200
        assert "X-RateLimit-Limit" not in (await lago.http.get("/health")).headers
    limits = SandboxLimits(500)
    assert limits.of("POST", "/api/v1/events/batch").most == 500
    assert limits.of("GET", "/api/v1/customers/c/current_usage").most == 200
    assert limits.of("GET", "/api/v1/events/t1").most == 50


async def test_without_the_option_there_is_no_limit() -> None:
    async with lago_sandbox() as lago:
        answers = await asyncio.gather(*(lago.post(event(f"t{n}")) for n in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert not [name for name in answers[0].headers if name.lower().startswith("x-ratelimit")]


async def test_before_1_39_a_batch_refused_for_a_duplicate_is_stored_without_it() -> None:
    for version, stored in (("v1.38.4", 3), ("v1.39.0", 1)):
        async with lago_sandbox(version=version) as lago:
            assert (await lago.http.get("/health")).json()["version"] == version
            await lago.post(event("a"))
            assert set(codes(await lago.post(event("a"), event("b"), event("c")))) == {"0"}
            assert (await lago.stats())["totals"]["events"] == stored
