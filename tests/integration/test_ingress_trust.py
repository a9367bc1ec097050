"""Which requests the running ingress accepts, which it refuses, and how it asks a sender to retry later."""

import asyncio
import hmac
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_network

import pytest

from connectors.config.settings import load_settings
from connectors.http.client_address import ClientAddressPolicy
from connectors.http.rate_limit import SenderRateLimiter
from connectors.ingest.auth import WebhookAuth
from connectors.kafka.producer import Record
from connectors.processes.server import WEBHOOKS, serving
from schemas.errors import ConfigurationError, Rejected
from tests.support import ingress as support
from tests.support.eventually import PATIENCE
from tests.support.http_client import http_client
from tests.support.ingress import USAGE, Ingress
from tests.support.kafka import Kafka

CALL = '{"id":"x","end_user":"c","spend":0.1}'
NOW = 1_795_215_900
KEY = b"key"
SECRETS = ["plain-secret", "whsec_" + b64encode(KEY).decode()]


@dataclass
class AcceptingTopics:
    """A Kafka that accepts everything."""

    records: list[Record] = field(default_factory=list)

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        self.records += records
        return {}


def stamped(at: int = NOW, secret: str = "plain-secret", body: str = CALL) -> dict[str, str]:
    signature = hmac.new(secret.encode(), f"{at}.{body}".encode(), sha256).hexdigest()
    return {"X-Webhook-Signature": f"t={at},v1={signature}"}


def standard(at: int = NOW, key: bytes = KEY) -> dict[str, str]:
    signature = b64encode(hmac.new(key, f"m.{at}.{CALL}".encode(), sha256).digest()).decode()
    return {"webhook-id": "m", "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}


async def refusal(ingress: Ingress, **headers: str) -> tuple[int, str]:
    answer = await ingress.post(CALL, **headers)
    assert answer.content_type == "application/problem+json"
    return answer.status, (await answer.json())["reason"]


async def test_every_form_of_signature_is_accepted_and_an_old_one_is_reported_as_old() -> None:
    kafka, auth = AcceptingTopics(), WebhookAuth(SECRETS, now_s=lambda: NOW)
    async with support.serving(support.store_in(kafka), auth=auth) as ingress:
        for headers in (stamped(), standard(), stamped(NOW - 300), standard(NOW + 300)):
            assert (await ingress.post(CALL, **headers)).status == 202
        assert len(kafka.records) == 4
        for headers in (stamped(NOW - 301), standard(NOW + 301)):
            assert await refusal(ingress, **headers) == (401, "stale_signature")
        for headers in (stamped(secret="dead"), standard(key=b"dead"), stamped(body="another"), {}):
            assert await refusal(ingress, **headers) == (401, "unknown_sender")
        assert len(kafka.records) == 4


async def test_a_large_signed_body_does_not_block_other_requests() -> None:
    kafka, auth = AcceptingTopics(), WebhookAuth(SECRETS, now_s=lambda: NOW)
    body = f"[{','.join([CALL] * 100_000)}]"
    async with support.serving(support.store_in(kafka), auth=auth) as ingress:
        large = asyncio.create_task(ingress.post(body, **stamped(body=body)))
        assert (await ingress.post(CALL, **stamped())).status == 202
        assert (await large).status == 202
        assert len(kafka.records) == 100_001


async def test_only_allowed_addresses_may_post_and_only_a_trusted_proxys_header_counts() -> None:
    kafka, allowed = AcceptingTopics(), [ip_network("198.51.100.0/24")]
    store = support.store_in(kafka)
    result = {"X_Forwarded_For": "203.0.113.9, 198.51.100.7"}
    async with support.serving(store, origins=ClientAddressPolicy(allowed, [])) as ingress:
        for headers in ({}, result):
            assert await refusal(ingress, **headers) == (403, "address_not_allowed")
    async with support.serving(store, origins=ClientAddressPolicy(allowed, [ip_network("127.0.0.0/8")])) as ingress:
        assert (await ingress.post(CALL, **result)).status == 202
        for headers in ({}, {"X_Forwarded_For": "198.51.100.7, 203.0.113.9"}):
            assert await refusal(ingress, **headers) == (403, "address_not_allowed")
    async with support.serving(store, origins=ClientAddressPolicy([ip_network("127.0.0.1")], [])) as ingress:
        assert (await ingress.post(CALL)).status == 202
    assert len(kafka.records) == 2


async def test_an_address_is_refused_before_its_body_is_read() -> None:
    async with support.serving(
        support.store_in(AcceptingTopics()), origins=ClientAddressPolicy([ip_network("198.51.100.7")], [])
    ) as ingress:
        reader, writer = await asyncio.open_connection(ingress.client.host, ingress.client.port)
        writer.write(f"POST {USAGE} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode())
        assert b" 403 " in await asyncio.wait_for(reader.readline(), 5 * PATIENCE)
        writer.close()


@pytest.mark.parametrize("how", ["token", "signature"])
async def test_a_sender_over_its_rate_limit_is_told_to_come_back_and_others_are_served(how: str) -> None:
    """With 503, never 429: LiteLLM drops a batch that gets a 429."""
    now = 0.0
    auth = WebhookAuth(["plain-secret"], ["a-live-token", "b"], now_s=lambda: NOW)
    first = {"Authorization": "Bearer a-live-token"} if how == "token" else stamped()
    async with support.serving(
        support.store_in(AcceptingTopics()), auth=auth, pace=SenderRateLimiter(2, lambda: now)
    ) as ingress:
        for _ in range(2):
            assert (await ingress.post(CALL, **first)).status == 202
        answer = await ingress.post(CALL, **first)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert (await answer.json())["reason"] == "rate_limited"
        assert (await ingress.post(CALL, Authorization="Bearer b")).status == 202
        assert await refusal(ingress, Authorization="Bearer c") == (401, "unknown_sender")
        now += 0.5
        assert (await ingress.post(CALL, **first)).status == 202


async def test_an_open_ingress_has_one_rate_limit_for_all() -> None:
    async with support.serving(
        support.store_in(AcceptingTopics()), pace=SenderRateLimiter(0.1, lambda: 0.0)
    ) as ingress:
        assert (await ingress.post(CALL)).status == 202
        answer = await ingress.post(CALL)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "10")


async def test_the_variables_reach_the_running_server() -> None:
    """Kafka is unavailable: an accepted request gets 503 for that reason."""
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "PORT": "0",
        "METRICS_PORT": "0",
        "WEBHOOK_TOKEN": "a-live-token",
        "WEBHOOK_SECRET": "plain-secret",
        "WEBHOOK_TOLERANCE": "5",
        "WEBHOOK_ALLOWED_IPS": "198.51.100.7",
        "TRUSTED_PROXIES": "127.0.0.1",
        "WEBHOOK_RATE_LIMIT": "1",
    }
    async with serving(load_settings(environ), [WEBHOOKS]) as served:
        url = f"http://127.0.0.1:{served.ports[WEBHOOKS]}{USAGE}"
        async with http_client(trust_env=False) as http:

            async def reason(**headers: str) -> str:
                answer = await http.post(url, content=CALL, headers=headers)
                return str(answer.json()["reason"])

            allowed = {"X-Forwarded-For": "198.51.100.7"}
            assert await reason() == "address_not_allowed"
            assert await reason(**allowed) == "unknown_sender"
            assert await reason(**allowed, **stamped(1)) == "stale_signature"
            assert await reason(**allowed, Authorization="Bearer a-live-token") == "topics_unchecked"
            assert await reason(**allowed, Authorization="Bearer a-live-token") == "rate_limited"
            packed = {**allowed, **stamped(1), "Content-Encoding": "br"}
            br = await http.post(url, content=b"ab", headers=packed)
            assert (br.status_code, br.json()["reason"]) == (415, "unknown_encoding")
    with pytest.raises(ConfigurationError, match="whsec_"):
        async with serving(load_settings({**environ, "WEBHOOK_SECRET": "whsec_*"}), [WEBHOOKS]):
            pass


@pytest.mark.parametrize("name", ["ce-id", "ce-specversion"])
async def test_a_signature_admits_no_event_whose_attributes_it_does_not_cover(
    kafka: Kafka, topic_prefix: str, name: str
) -> None:
    """Earlier a recorded post, sent again with these headers, was a new call of any customer each time."""
    auth = WebhookAuth(SECRETS, ["a-token"], now_s=lambda: NOW)
    event = {name: "1", "ce-source": "s", "ce-subject": "c"}
    token = {"Authorization": "Bearer a-token"}
    support.create_topics(kafka.bootstrap, topic_prefix)
    async with support.running_ingress(kafka.bootstrap, topic_prefix, auth=auth) as ingress:
        for signed in (stamped(), standard()):
            assert await refusal(ingress, **signed, **event) == (401, "unsigned_attributes")
            assert (await ingress.post(CALL, **signed)).status == 202
        structured = {"Content_Type": "application/cloudevents+json"}
        assert (await ingress.post(CALL, **stamped(), **event, **structured)).status == 202
        assert {stored.raw().call.id for stored in ingress.raw()} == {"x"}
        event |= {"ce-id": "1", "ce-specversion": "1.0"}
        assert (await ingress.post(CALL, **token, **event)).status == 202
        assert (await ingress.post(CALL, **token, **stamped(), **event)).status == 202
        assert len(ingress.raw()) == 5
