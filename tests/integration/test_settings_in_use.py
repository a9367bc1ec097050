"""Settings reach the code that they are for: a server with another value than the default behaves differently."""

import asyncio
import gzip
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256

import httpx
import pytest

from connectors.config.settings import load_settings
from connectors.library import orgs
from connectors.processes.server import WEBHOOKS, serving
from schemas.errors import ConfigurationError
from tests.integration.test_mapping_api import json_of
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.ports import free_port
from tests.support.sandbox import KEY, lago_sandbox
from tests.support.server import BEARER, running_server, settings_for
from tests.support.stage import Stage

CALL = {"id": "r-1", "end_user": "eve", "team_id": "team-7", "user_id": "u", "model": "m", "spend": 0.5}
TOKEN = {"Authorization": "Bearer webhook-token"}


@pytest.mark.parametrize(
    ("fields", "customer", "kind"), [(("team", "end_user"), "team-7", "team"), (("user",), "u", "user")]
)
async def test_the_customer_is_read_from_customer_id_fields(
    kafka: Kafka, topic_prefix: str, fields: tuple[str, ...], customer: str, kind: str
) -> None:
    settings = settings_for(kafka, topic_prefix, webhook_token=("webhook-token",), customer_id_fields=fields)
    async with running_server(settings) as server:
        json_of(await server.http.post("/webhook/litellm/usage", json=CALL, headers=TOKEN), 202)
    stage = Stage(kafka.bootstrap, topic_prefix, settings.kafka_partitions)
    [record] = stage.read(stage.topics.raw)
    assert record.key().decode() == customer
    assert stage.values(stage.topics.raw)[0]["id_kind"] == kind


async def test_orgs_are_recognised_by_org_id_prefixes_and_subscribed_by_subscription_id_template(
    kafka: Kafka, topic_prefix: str
) -> None:
    async with lago_sandbox() as lago:
        await lago.plan("starter", 1900)
        settings = settings_for(
            kafka,
            topic_prefix,
            lago_api_url=lago.url,
            lago_api_key=KEY,
            org_id_prefixes=("team-", "acct-"),
            subscription_id_template="sub_{org_id}",
        )
        async with running_server(settings) as server:
            assert [orgs.is_org_customer(one) for one in ("org_1", "team-1", "acct-1")] == [False, True, True]
            path = "/api/v1/billing/org/organizations/team-1/setup"
            created = json_of(await server.http.post(path, json={"plan_code": "starter"}, headers=BEARER), 201)
        assert created["subscription"]["external_id"] == "sub_team-1"
        listed = (await lago.get("/subscriptions")).json()["subscriptions"]
        assert [one["external_id"] for one in listed] == ["sub_team-1"]


@pytest.mark.parametrize(("tolerance", "status"), [(30.0, 401), (300.0, 202)])
async def test_a_signatures_age_is_bounded_by_webhook_tolerance(
    kafka: Kafka, topic_prefix: str, tolerance: float, status: int
) -> None:
    settings = settings_for(kafka, topic_prefix, webhook_secret=("hushed-secret",), webhook_tolerance=tolerance)
    at, body = int(time.time()) - 100, json.dumps(CALL).encode()
    signature = hmac.new(b"hushed-secret", b"%d.%b" % (at, body), sha256).hexdigest()
    async with running_server(settings) as server:
        headers = {"X-Webhook-Signature": f"t={at},v1={signature}"}
        answer = await server.http.post("/webhook/litellm/usage", content=body, headers=headers)
    assert answer.status_code == status


async def test_a_body_that_does_not_arrive_is_abandoned_after_webhook_timeout(kafka: Kafka, topic_prefix: str) -> None:
    settings = settings_for(kafka, topic_prefix, webhook_token=("webhook-token",), webhook_timeout=1.0)
    head = "POST /webhook/litellm/usage HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer webhook-token\r\nContent-Length: 9\r\n\r\n{"
    async with running_server(settings) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.ports["webhooks"])
        writer.write(head.encode())
        answering = asyncio.ensure_future(reader.readline())
        await asyncio.wait({answering}, timeout=20)  # by default it is longer, and the rest would arrive in time
        writer.write(b'"id":1}}')
        answer = await answering
        writer.close()
    assert b" 408 " in answer


async def test_a_change_of_a_mapping_applies_after_mapping_delay_seconds(kafka: Kafka, topic_prefix: str) -> None:
    settings = settings_for(kafka, topic_prefix, mapping_delay_seconds=600)
    async with running_server(settings, ["api"]) as server:
        json_of(await server.map(org="org_1"), 201)
        before = time.time()
        changed = json_of(await server.map(org="org_2"))
    begins = datetime.fromisoformat(changed["effective_from"]).timestamp()
    assert before + 599 <= begins <= time.time() + 602


async def test_with_a_shorter_mapping_delay_the_last_request_still_wins(kafka: Kafka, topic_prefix: str) -> None:
    """The api was restarted with 1 s while a change that it had delayed by 600 s was still to come."""
    settings = settings_for(kafka, topic_prefix, mapping_delay_seconds=600)
    async with running_server(settings, ["api"]) as server:
        json_of(await server.map(org="org_1"), 201)
        put_off = json_of(await server.map(org="org_2"))
    async with running_server(settings.model_copy(update={"mapping_delay_seconds": 1}), ["api"]) as server:
        changed = json_of(await server.map(org="org_3"))
        history = json_of(await server.http.get("/customers/customer-1/mapping/history", headers=BEARER))
    assert (changed["lago_customer_id"], changed["effective_from"]) == ("org_3", put_off["effective_from"])
    assert [one["lago_customer_id"] for one in history["versions"]] == ["org_1", "org_3"]


async def test_lago_is_abandoned_after_lago_timeout(kafka: Kafka, topic_prefix: str) -> None:
    async with lago_sandbox() as lago:
        await lago.fault(kind="slow", seconds=20, path="/api/v1/plans", method="GET", count=1)
        settings = settings_for(kafka, topic_prefix, lago_api_url=lago.url, lago_api_key=KEY, lago_timeout=0.5)
        async with running_server(settings, ["api"]) as server:
            answer = await server.http.get("/api/billing/plans", headers=BEARER)  # by default it is waited for
    assert (answer.status_code, answer.json().get("reason")) == (503, "timeout")


#: Where no Kafka is: a server starts all the same, and says 503 to what it would have stored.
AWAY = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "PORT": "0", "METRICS_PORT": "0", "WEBHOOK_TOKEN": "webhook-token"}


async def reason(http: httpx.AsyncClient, body: str | bytes, headers: dict[str, str] = TOKEN) -> tuple[int, str]:
    answer = await http.post("/webhook/litellm/usage", content=body, headers=headers)
    return answer.status_code, answer.json()["reason"]


@asynccontextmanager
async def server_alone(**environ: str) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(load_settings(AWAY | environ), [WEBHOOKS]) as served:
        url = f"http://{environ.get('HOST', '127.0.0.1')}:{served.ports[WEBHOOKS]}"
        async with http_client(base_url=url, trust_env=False) as http:
            yield http


async def test_a_body_is_limited_by_max_body_bytes() -> None:
    call = json.dumps(CALL)
    fits, too_large = call + " " * (10_240 - len(call)), call + " " * (10_241 - len(call))
    async with server_alone(MAX_BODY_BYTES="10KiB") as http:
        assert await reason(http, fits) == (503, "topics_unchecked")
        assert await reason(http, too_large) == (413, "body_too_large")
        assert await reason(http, gzip.compress(too_large.encode()), TOKEN | {"Content-Encoding": "gzip"}) == (
            *(413, "body_too_large"),
        )
    async with server_alone() as http:
        assert await reason(http, too_large) == (503, "topics_unchecked")


async def test_a_server_listens_only_at_host() -> None:
    port, metrics = free_port(), free_port()
    there = {"PORT": str(port), "METRICS_PORT": str(metrics)}
    async with server_alone(HOST="127.0.0.2", **there) as http:
        assert (await http.get("/health/live")).status_code == 200
        scraped = await asyncio.to_thread(httpx.get, f"http://127.0.0.2:{metrics}/metrics", trust_env=False)
        assert "meterbridge_build_info" in scraped.text
        for number in (port, metrics):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", number)
    async with server_alone(**there) as http:
        assert (await http.get("/health/live")).status_code == 200
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.2", port)


async def test_without_a_token_a_server_accepts_calls_only_with_allow_unauthenticated() -> None:
    async with server_alone(WEBHOOK_TOKEN="", ALLOW_UNAUTHENTICATED="1") as http:
        assert await reason(http, json.dumps(CALL), {}) == (503, "topics_unchecked")
    with pytest.raises(ConfigurationError, match="ALLOW_UNAUTHENTICATED=1"):
        async with server_alone(WEBHOOK_TOKEN=""):
            pass


async def test_a_signature_without_a_time_is_accepted_until_a_time_is_required() -> None:
    body = json.dumps(CALL).encode()
    plain = {"X-Webhook-Signature": hmac.new(b"the-secret", body, sha256).hexdigest()}
    async with server_alone(WEBHOOK_SECRET="the-secret") as http:
        assert (await reason(http, body, plain))[1] == "topics_unchecked"
    async with server_alone(WEBHOOK_SECRET="the-secret", WEBHOOK_TIMESTAMP_REQUIRED="1") as http:
        assert await reason(http, body, plain) == (401, "unstamped_signature")


@pytest.mark.parametrize("variable", ["WEBHOOK_TOKEN", "WEBHOOK_SECRET"])
async def test_a_server_does_not_start_with_a_credential_that_can_be_guessed(variable: str) -> None:
    for host, credential in (("127.0.0.1", "7-bytes"), ("0.0.0.0", "fifteen-bytes-1")):
        with pytest.raises(ConfigurationError, match=f"value 1 of {variable} is shorter"):
            async with server_alone(**{variable: credential, "HOST": host}):
                pass


async def test_each_of_several_secrets_and_tokens_is_accepted() -> None:
    body = json.dumps(CALL).encode()
    async with server_alone(WEBHOOK_TOKEN="new-token,old-token", WEBHOOK_SECRET="fresh-secret,stale-secret") as http:
        for token, result in (
            ("new-token", "topics_unchecked"),
            ("old-token", "topics_unchecked"),
            ("new-token,old-token", "unknown_sender"),
        ):
            assert (await reason(http, body, {"Authorization": f"Bearer {token}"}))[1] == result
        for secret, result in (
            ("fresh-secret", "topics_unchecked"),
            ("stale-secret", "topics_unchecked"),
            ("webhook-token", "unknown_sender"),
        ):
            signature = hmac.new(secret.encode(), body, sha256).hexdigest()
            assert (await reason(http, body, {"X-Webhook-Signature": signature}))[1] == result
