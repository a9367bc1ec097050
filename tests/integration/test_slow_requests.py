"""Slow requests leave Postgres connections for the requests that LLM calls wait for."""

import asyncio
import itertools
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from connectors.credits import ledger
from tests.support.credits import give
from tests.support.eventually import PATIENCE
from tests.support.kafka import Kafka
from tests.support.server import BEARER, Server, running_server, settings_for

_SLOW = ("api/v1/analytics/usage?days=30", "api/v1/credits/transactions?user=ada")
#: Until its end the sums of analytics are locked, and so are lists of transactions; a reservation needs the table of these too.
_LOCK = """
LOCK TABLE usage_summary_days, usage_by_dimension, usage_latencies IN ACCESS EXCLUSIVE MODE;
SELECT pg_advisory_xact_lock(1)
"""
_SLOWLY = """
WITH slow AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(1)) SELECT t.* FROM ({statement}) AS t CROSS JOIN slow
"""


async def answer_of(server: Server, verb: str, path: str, **options: Any) -> tuple[int, dict[str, Any], str]:
    """Status, JSON and `Retry-After` of the answer."""
    answer = await server.http.request(verb, f"/{path}", headers=BEARER, timeout=60 * PATIENCE, **options)
    return answer.status_code, answer.json(), answer.headers.get("Retry-After", "")


@pytest.mark.parametrize("slow", _SLOW)
async def test_four_slow_requests_leave_authorize_balance_and_power_levels_fast(
    kafka: Kafka, topic_prefix: str, url: str, slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request without a connection is answered 503 soon, and counted; the others continue when they can.

    An important request that had to wait for a connection would be answered 503 as well.
    """
    await give(url, "user:ada", "10")
    settings = settings_for(kafka, topic_prefix, database_url=SecretStr(url))
    locking = await asyncpg.connect(url)
    async with running_server(settings, ("api",)) as server:
        try:
            for path in (slow, "api/v1/power-levels"):
                assert (await answer_of(server, "GET", path))[0] == 200
            locked = locking.transaction()
            await locked.start()
            await locking.execute(_LOCK)
            monkeypatch.setattr(ledger, "_TRANSACTIONS", _SLOWLY.format(statement=ledger._TRANSACTIONS))
            waiting = [asyncio.ensure_future(answer_of(server, "GET", slow)) for _ in range(4)]
            await asyncio.sleep(0.3)
            for number in range(3):
                call = {"json": {"user": "ada", "estimate": "1", "call_id": f"c{number}"}}
                status, result, _ = await answer_of(server, "POST", "api/v1/credits/authorize", **call)
                assert (status, result.get("available")) == (200, str(9 - number)), result
                for path in ("api/v1/credits/balance?user=ada", "api/v1/power-levels", "api/v1/credits/packages"):
                    status, result, _ = await answer_of(server, "GET", path)
                    assert status == 200, (path, result)
            done, still = set[Any](), set(waiting)
            while len(done) < 2:
                more, still = await asyncio.wait(still, timeout=3 * PATIENCE, return_when=asyncio.FIRST_COMPLETED)
                assert more
                done |= more
            for one in done:
                status, result, after = one.result()
                assert (status, result["reason"], after) == (503, "no_free_connection", "5")
            await locked.rollback()
            assert [status for status, *_ in await asyncio.gather(*still)] == [200, 200]
        finally:
            await locking.close()
        metrics = (await server.http.get("/metrics/prometheus", headers=BEARER)).text
        assert 'meterbridge_api_postgres_refused_total{pool="slow"} 2.0' in metrics
        assert 'meterbridge_api_postgres_refused_total{pool="credits"} 0.0' in metrics


async def test_many_requests_of_a_locked_account_leave_connections_for_the_others(
    kafka: Kafka, topic_prefix: str, url: str
) -> None:
    """The account is locked as by a long transaction. More of its requests wait than there are connections."""
    for user in ("hot", "ada"):
        await give(url, f"user:{user}", "10")
    settings = settings_for(kafka, topic_prefix, database_url=SecretStr(url), api_postgres_connections=3)
    locking = await asyncpg.connect(url)
    async with running_server(settings, ("api",)) as server:
        try:
            locked = locking.transaction()
            await locked.start()
            await locking.execute("SELECT FROM user_credits WHERE user_id = 'hot' FOR UPDATE")

            async def authorize(user: str, call_id: str) -> tuple[int, dict[str, Any], str]:
                call = {"json": {"user": user, "estimate": "0.01", "call_id": call_id}}
                return await answer_of(server, "POST", "api/v1/credits/authorize", **call)

            waiting = [asyncio.ensure_future(authorize("hot", f"hot{number}")) for number in range(20)]
            await asyncio.sleep(0.3)
            for number in range(3):
                status, result, _ = await authorize("ada", f"c{number}")
                assert status == 200, result
            answers = asyncio.as_completed(waiting, timeout=10 * PATIENCE)
            done = [(await one)[1]["reason"] for one in itertools.islice(answers, 19)]
            still = [one for one in waiting if not one.done()]
            assert (done, len(still)) == (["no_free_connection"] * 19, 1)
            await locked.rollback()
            assert [status for status, *_ in await asyncio.gather(*still)] == [200]
        finally:
            await locking.close()
