"""Signatures of outgoing webhooks, as the Standard Webhooks library verifies them."""

import time

import httpx
import pytest
import structlog
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from connectors.config.settings import load_settings
from connectors.operations.outgoing_webhooks.announcements import _step, new_id
from connectors.operations.outgoing_webhooks.delivery import MessageSender
from connectors.operations.outgoing_webhooks.endpoints import WebhookTarget, headers_of
from schemas.errors import ConfigurationError
from tests.support.webhook_receiver import OLDER, SECRET

BODY = b'{"type":"webhook.test"}'


@pytest.mark.parametrize("secret", [SECRET, OLDER])
def test_a_receiver_with_either_secret_can_verify_a_message(secret: str) -> None:
    headers = headers_of(new_id(), int(time.time()), BODY, [SECRET, OLDER])
    assert Webhook(secret).verify(BODY, headers) == {"type": "webhook.test"}


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "body", "secret"])
def test_a_changed_message_does_not_verify(changed: str) -> None:
    headers = headers_of("msg_1", int(time.time()), BODY, [OLDER if changed == "secret" else SECRET])
    headers |= {"webhook-id": "msg_2"} if changed == "webhook-id" else {}
    headers |= {"webhook-timestamp": str(int(time.time()) - 1)} if changed == "webhook-timestamp" else {}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(b"{}" if changed == "body" else BODY, headers)


def test_the_specifications_own_example_has_this_signature() -> None:
    """From https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md and its
    libraries' tests.
    """
    headers = headers_of("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [SECRET])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_endpoint_shows_its_host_and_never_its_url() -> None:
    endpoint = WebhookTarget("https://hooks.example/services/T0/token")
    assert endpoint.host == "hooks.example"
    assert "token" not in repr(endpoint) + endpoint.name + endpoint.host


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.InvalidURL, TimeoutError])
async def test_an_endpoint_that_does_not_answer_is_logged_with_the_error(
    error: type[Exception],
) -> None:
    def reset(_: httpx.Request) -> httpx.Response:
        raise error("reset")

    http = httpx.AsyncClient(transport=httpx.MockTransport(reset))
    with structlog.testing.capture_logs() as logs:
        assert await MessageSender(http, [SECRET]).post(WebhookTarget("https://a/x"), "msg_1", BODY) == 0
    assert [(line["event"], line["host"], line["error"]) for line in logs] == [
        ("webhook_unanswered", "a", error.__name__)
    ]


@pytest.mark.parametrize(("usd", "step"), [("0", 0), ("9.99", 0), ("10", 1), ("19", 1), ("20", 2), ("85", 4)])
def test_held_usage_is_announced_at_its_threshold_and_at_each_doubling(usd: str, step: int) -> None:
    from decimal import Decimal

    assert _step(Decimal(usd), Decimal(10)) == step


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("OUTGOING_WEBHOOK_URLS", "http://in.the.clear/hook", "https://"),
        ("OUTGOING_WEBHOOK_URLS", "https://a/x,https://a/x", "different"),
        ("OUTGOING_WEBHOOK_URLS", "ftp://a/x", "address"),
        ("OUTGOING_WEBHOOK_SECRETS", "secret", "whsec_"),
        ("OUTGOING_WEBHOOK_SECRETS", "whsec_c2hvcnQ=", "24 to 64"),
        ("OUTGOING_WEBHOOK_EVENTS", "usage.lost", "different names"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_not_repeated(name: str, value: str, word: str) -> None:
    environ = {"OUTGOING_WEBHOOK_SECRETS": SECRET, "OUTGOING_WEBHOOK_URLS": "https://a/x", name: value}
    with pytest.raises(ConfigurationError, match=word) as caught:
        load_settings(environ)
    assert name in str(caught.value)
    assert "secret" not in caught.value.detail.replace("OUTGOING_WEBHOOK_SECRETS", "")


def test_an_unsigned_webhook_is_refused_and_http_only_accepted_if_allowed() -> None:
    with pytest.raises(ConfigurationError, match="need OUTGOING_WEBHOOK_SECRETS"):
        load_settings({"OUTGOING_WEBHOOK_URLS": "https://a/x"})
    allowed = {"OUTGOING_WEBHOOK_ALLOW_HTTP": "true", "OUTGOING_WEBHOOK_SECRETS": SECRET}
    assert len(load_settings({**allowed, "OUTGOING_WEBHOOK_URLS": "http://a/x?token=1"}).outgoing_webhook_urls) == 1
