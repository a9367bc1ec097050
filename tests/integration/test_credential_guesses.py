"""Guesses of credentials are slowed down, counted and logged; authenticated callers are not affected."""

import asyncio

import pytest
import structlog
from aiohttp import web

from connectors.http.unauthenticated_limits import UnauthenticatedConnections, bounds_of
from connectors.processes.server import API, WEBHOOKS, serving
from tests.support.http_client import http_client
from tests.support.ingress import USAGE
from tests.support.kafka import Kafka
from tests.support.server import settings_for

GUESS = "a-guess-that-nobody-may-read"


@pytest.mark.kafka
async def test_guesses_are_counted_and_logged_once_a_minute_and_never_with_the_guess(
    kafka: Kafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an earlier version 300 wrong tokens took 0.2 s, and left only a counter."""
    delayable, answered = list[int](), UnauthenticatedConnections.answered

    def seen(unauthenticated: UnauthenticatedConnections, request: web.BaseRequest, status: int) -> float:
        delayable.append(status)
        return answered(unauthenticated, request, status)

    monkeypatch.setattr(UnauthenticatedConnections, "answered", seen)
    settings = settings_for(
        kafka, topic_prefix, webhook_token=("the-token-of-a-sender",), allow_unauthenticated=False, api_port=0
    )
    with structlog.testing.capture_logs() as lines:
        async with serving(settings, (WEBHOOKS, API)) as served, http_client(trust_env=False) as http:
            await served.ready.wait()
            webhooks, api = (f"http://127.0.0.1:{served.ports[part]}" for part in (WEBHOOKS, API))

            async def guess(turn: int) -> bool:
                """Whether its answer was delayed."""
                headers = {"Authorization": f"Bearer {GUESS}-{turn}"}
                if turn % 2:
                    answer = await http.post(webhooks + USAGE, content=b"{}", headers=headers)
                else:
                    answer = await http.get(f"{api}/customers/c/mapping", headers=headers)
                assert answer.status_code in (401, 429)
                return answer.headers.get("connection") == "close" and answer.elapsed.total_seconds() > 0.9

            waited = await asyncio.gather(*(guess(turn) for turn in range(40)))
            assert sum(waited) >= 15
            text = (await http.get(f"{webhooks}/metrics/prometheus")).text
            right = {"Authorization": "Bearer the-token-of-a-sender"}
            call = b'{"id":"x","end_user":"c","spend":0.1}'
            admitted = await http.post(webhooks + USAGE, content=call, headers=right)
            assert (admitted.status_code, 202 in delayable, 401 in delayable) == (202, False, True)
    [counted] = (line for line in text.splitlines() if line.startswith("meterbridge_wrong_credentials_total "))
    assert float(counted.split()[1]) >= 20
    assert 'meterbridge_connections_closed_total{cause="silent"} 0.0' in text
    result = [line for line in lines if line["event"] == "wrong_credentials"]
    assert result == [{"event": "wrong_credentials", "log_level": "warning", "address": "127.0.0.1"}]
    assert GUESS not in str(lines)


@pytest.mark.parametrize("descriptors", [150, 256, 512, 1024, 4096, 1 << 20])
def test_there_are_fewer_places_for_unauthenticated_connections_than_descriptors(descriptors: int) -> None:
    """Earlier, with 150 descriptors, 160 silent connections blocked the process."""
    bounds = bounds_of(descriptors)
    assert 16 <= bounds.total <= 4096
    assert bounds.total + bounds.at_once + 50 <= descriptors
    assert bounds.of_one <= bounds.total
