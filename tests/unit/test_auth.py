"""Laws of admission: a valid signature or a live token, and nothing else; nobody is left out by rotation."""

import hmac
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.http.auth import WebhookAuth, check_exposure
from schemas.errors import ConfigurationError

BODY = b'[{"id":"x"}]'
AUTH = WebhookAuth(secrets=["old-secret", "new-secret"], tokens=["old-token", "new-token"])


def _signature(secret: str, body: bytes = BODY) -> str:
    return hmac.new(secret.encode(), body, sha256).hexdigest()


@pytest.mark.parametrize("secret", ["old-secret", "new-secret"])
@pytest.mark.parametrize("written", ["{}", "sha256={}", " sha256={} "])
def test_every_live_secret_signs_with_or_without_the_prefix(secret: str, written: str) -> None:
    assert AUTH.knows_signature(written.format(_signature(secret)), BODY)
    assert AUTH.knows_signature(written.format(_signature(secret).upper()), BODY)


@pytest.mark.parametrize(
    "signature",
    [None, "", "sha256=", _signature("dead-secret"), _signature("new-secret", BODY + b" "), "é", "\udcff", "0" * 64],
)
def test_nothing_else_is_a_signature(signature: str | None) -> None:
    assert not AUTH.knows_signature(signature, BODY)


@settings(deadline=None)
@given(st.binary(), st.integers(min_value=0, max_value=63), st.sampled_from("0123456789abcdef"))
def test_one_changed_digit_is_enough(body: bytes, place: int, digit: str) -> None:
    right = _signature("new-secret", body)
    wrong = right[:place] + digit + right[place + 1 :]
    assert AUTH.knows_signature(wrong, body) == (wrong == right)


@pytest.mark.parametrize("header", ["Bearer old-token", "bearer new-token", "BEARER  new-token "])
def test_every_live_token_admits(header: str) -> None:
    assert AUTH.knows_token(header)


@pytest.mark.parametrize(
    "header", [None, "", "new-token", "Basic new-token", "Bearer", "Bearer ", "Bearer new-toke", "Bearer \udcff"]
)
def test_nothing_else_is_a_token(header: str | None) -> None:
    assert not AUTH.knows_token(header)


def test_an_empty_secret_or_token_admits_nobody() -> None:
    """`WEBHOOK_TOKEN=` in a deployment's file must not turn into an open door."""
    auth = WebhookAuth(secrets=["", "s"], tokens=[""])
    assert not auth.knows_token("Bearer ")
    assert not auth.knows_signature(hmac.new(b"", BODY, sha256).hexdigest(), BODY)
    assert not auth.is_open


def test_a_signature_is_only_waited_for_where_one_could_help() -> None:
    assert not WebhookAuth(tokens=["t"]).reads_signatures
    assert WebhookAuth(secrets=["s"]).reads_signatures
    assert WebhookAuth(secrets=[""]).is_open


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_may_be_open(host: str) -> None:
    check_exposure(host, WebhookAuth(), allow_unsigned=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "billing.example", ""])
def test_an_address_others_reach_needs_a_secret_a_token_or_a_word(host: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_exposure(host, WebhookAuth(), allow_unsigned=False)
    assert caught.value.reason == "WEBHOOK_TOKEN"
    check_exposure(host, WebhookAuth(), allow_unsigned=True)
    check_exposure(host, WebhookAuth(tokens=["t"]), allow_unsigned=False)
    check_exposure(host, WebhookAuth(secrets=["s"]), allow_unsigned=False)
