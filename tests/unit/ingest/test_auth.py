"""Authentication of webhooks: only a valid signature or a configured token is accepted, also while secrets are rotated."""

import hmac
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ingest.auth import ExpiredSignature, WebhookAuth, check_exposure
from connectors.ingest.secret_strength import check_strength
from schemas.errors import ConfigurationError

BODY = b'[{"id":"x"}]'
NOW = 1_795_215_900
KEY = b"\x00\xff a key of bytes"
STANDARD = "whsec_" + b64encode(KEY).decode()
AUTH = WebhookAuth(
    secrets=["old-secret", "new-secret", STANDARD], tokens=["old-token", "new-token"], now_s=lambda: NOW + 0.5
)


def _signature(secret: str | bytes, body: bytes = BODY) -> str:
    return hmac.new(secret if isinstance(secret, bytes) else secret.encode(), body, sha256).hexdigest()


def _plain(signature: str) -> dict[str, str]:
    return {"X-Webhook-Signature": signature}


def _stamped(at: object = NOW, secret: str = "new-secret", body: bytes = BODY) -> dict[str, str]:
    return _plain(f"t={at},v1={_signature(secret, str(at).encode() + b'.' + body)}")


def _standard(at: object = NOW, key: bytes = KEY, body: bytes = BODY, message_id: str = "msg_1") -> dict[str, str]:
    signature = b64encode(hmac.new(key, f"{message_id}.{at}.".encode() + body, sha256).digest()).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}


@pytest.mark.parametrize(("secret", "sender"), [("old-secret", "secret 0"), ("new-secret", "secret 1")])
@pytest.mark.parametrize("written", ["{}", "sha256={}", " sha256={} "])
def test_every_configured_secret_signs_with_or_without_the_prefix(secret: str, sender: str, written: str) -> None:
    for signature in (_signature(secret), _signature(secret).upper()):
        assert AUTH.signing_sender(_plain(written.format(signature)), BODY) == sender


@pytest.mark.parametrize(
    "signature",
    ["", "sha256=", _signature("dead-secret"), _signature("new-secret", BODY + b" "), "é", "\udcff", "0" * 64],
)
def test_any_other_text_is_no_valid_signature(signature: str) -> None:
    assert AUTH.signing_sender(_plain(signature), BODY) is None
    assert AUTH.signing_sender({}, BODY) is None


@given(st.binary(), st.integers(min_value=0, max_value=63), st.sampled_from("0123456789abcdef"))
def test_a_signature_with_one_changed_digit_is_refused(body: bytes, place: int, digit: str) -> None:
    right = _signature("new-secret", body)
    wrong = right[:place] + digit + right[place + 1 :]
    assert (AUTH.signing_sender(_plain(wrong), body) is not None) == (wrong == right)


def test_a_timestamp_in_a_signature_is_covered_by_the_signature() -> None:
    assert AUTH.signing_sender(_stamped(), BODY) == "secret 1"
    assert AUTH.signing_sender(_stamped(secret="old-secret"), BODY) == "secret 0"
    rotating = _stamped()["X-Webhook-Signature"] + ",v0=x,v1=" + "0" * 64
    assert AUTH.signing_sender(_plain(rotating), BODY) == "secret 1"
    another_second = _stamped()["X-Webhook-Signature"].replace(str(NOW), str(NOW + 1))
    assert AUTH.signing_sender(_plain(another_second), BODY) is None
    assert AUTH.signing_sender(_stamped(body=BODY + b" "), BODY) is None
    only_the_body = f"t={NOW},v1={_signature('new-secret')}"
    assert AUTH.signing_sender(_plain(only_the_body), BODY) is None


def test_a_standard_webhooks_secret_is_the_decoded_text_after_whsec() -> None:
    assert AUTH.signing_sender(_standard(), BODY) == "secret 2"
    assert AUTH.signing_sender(_standard(key=b"old-secret"), BODY) == "secret 0"
    several = {**_standard(), "webhook-signature": f"v1a,x v1,AAAA {_standard()['webhook-signature']}"}
    assert AUTH.signing_sender(several, BODY) == "secret 2"
    for changed in ({"webhook-id": "msg_2"}, {"webhook-id": ""}, {"webhook-timestamp": str(NOW + 1)}):
        assert AUTH.signing_sender({**_standard(), **changed}, BODY) is None
    assert AUTH.signing_sender(_standard(body=BODY + b" "), BODY) is None
    assert AUTH.signing_sender(_standard(message_id=""), BODY) is None
    assert AUTH.signing_sender(_standard(key=STANDARD.encode()), BODY) is None


def test_the_specifications_own_example_is_accepted() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, spec: "Signature scheme"."""
    auth = WebhookAuth(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], now_s=lambda: 1_614_265_330)
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert auth.signing_sender(headers, b'{"test": 2432232314}') == "secret 0"


@pytest.mark.parametrize("signed", [_stamped, _standard])
def test_a_signature_is_valid_within_the_tolerance_before_and_after_our_clock(
    signed: Callable[..., dict[str, str]],
) -> None:
    """The limits themselves are valid; our clock is half a second after `NOW`."""
    for offset, in_time in ((-299, True), (-300, False), (0, True), (300, True), (301, False)):
        if in_time:
            assert AUTH.signing_sender(signed(NOW + offset), BODY)
            continue
        with pytest.raises(ExpiredSignature) as caught:
            AUTH.signing_sender(signed(NOW + offset), BODY)
        assert caught.value.reason == "stale_signature"
    exact = WebhookAuth(["new-secret", STANDARD], tolerance_s=60, now_s=lambda: float(NOW))
    assert exact.signing_sender(signed(NOW - 60), BODY) and exact.signing_sender(signed(NOW + 60), BODY)


@pytest.mark.parametrize("at", ["", "-1", "1e9", " 1795215900", "١٧", "1" * 13, "now"])
def test_a_signature_with_a_malformed_timestamp_is_refused(at: str) -> None:
    assert AUTH.signing_sender(_stamped(at), BODY) is None
    assert AUTH.signing_sender(_standard(at), BODY) is None


def test_the_answer_to_a_wrong_signature_does_not_mention_its_timestamp() -> None:
    assert AUTH.signing_sender(_stamped(NOW - 9999, secret="dead-secret"), BODY) is None


@pytest.mark.parametrize("secret", ["whsec_", "whsec_not base64", "whsec_abc"])
def test_a_secret_that_is_no_base64_stops_the_start_and_is_not_repeated(secret: str) -> None:
    """It would be read as an empty key, with which anyone can sign."""
    with pytest.raises(ConfigurationError) as caught:
        WebhookAuth([secret])
    assert caught.value.reason == "WEBHOOK_SECRET"
    assert secret == "whsec_" or secret not in str(caught.value)


@pytest.mark.parametrize("header", ["Bearer old-token", "bearer new-token", "BEARER  new-token "])
def test_every_configured_token_is_accepted(header: str) -> None:
    assert AUTH.token_sender(header) is not None
    assert AUTH.token_sender(header) == f"token {int('new' in header)}"


@pytest.mark.parametrize(
    "header", [None, "", "new-token", "Basic new-token", "Bearer", "Bearer ", "Bearer new-toke", "Bearer \udcff"]
)
def test_any_other_text_is_no_valid_token(header: str | None) -> None:
    assert AUTH.token_sender(header) is None


def test_an_empty_secret_or_token_accepts_no_request() -> None:
    """`WEBHOOK_TOKEN=` in a deployment's file must not disable authentication."""
    auth = WebhookAuth(secrets=["", "s"], tokens=[""])
    assert auth.token_sender("Bearer ") is None
    assert auth.signing_sender(_plain(_signature("")), BODY) is None
    assert not auth.is_open


def test_the_body_is_read_for_a_signature_only_if_a_signature_could_be_valid() -> None:
    for headers in (_plain("x"), _standard()):
        assert WebhookAuth(secrets=["s"]).may_be_signed(headers)
        assert not WebhookAuth(tokens=["t"]).may_be_signed(headers)
        assert not WebhookAuth(secrets=["s"]).may_be_signed({"Authorization": "x"})
    assert WebhookAuth(secrets=[""]).is_open


def test_an_ingress_without_credentials_starts_only_with_an_explicit_setting_on_any_address() -> None:
    """On loopback too: through a proxy in front of it, or any program on the machine, anyone could create bills."""
    with pytest.raises(ConfigurationError, match="ALLOW_UNAUTHENTICATED=1") as caught:
        check_exposure(WebhookAuth(), allow_unauthenticated=False)
    assert caught.value.reason == "WEBHOOK_TOKEN"
    check_exposure(WebhookAuth(), allow_unauthenticated=True)
    check_exposure(WebhookAuth(tokens=["t"]), allow_unauthenticated=False)
    check_exposure(WebhookAuth(secrets=["s"]), allow_unauthenticated=False)


@given(st.binary(), st.integers(min_value=0, max_value=63))
def test_a_prefix_of_a_valid_signature_is_refused(body: bytes, length: int) -> None:
    """A prefix of one hex digit would be guessed in 16 attempts."""
    for secret in ("old-secret", "new-secret"):
        cut = _signature(secret, body)[:length]
        assert AUTH.signing_sender(_plain(cut), body) is None
        assert AUTH.signing_sender(_plain("sha256=" + cut), body) is None
        signed_at = _signature(secret, str(NOW).encode() + b"." + body)[:length]
        assert AUTH.signing_sender(_plain(f"t={NOW},v1={signed_at}"), body) is None


@given(st.binary(), st.integers(min_value=0, max_value=43))
def test_a_prefix_of_a_valid_standard_signature_is_refused(body: bytes, length: int) -> None:
    headers = _standard(body=body)
    headers["webhook-signature"] = headers["webhook-signature"][: len("v1,") + length]
    assert AUTH.signing_sender(headers, body) is None


def test_a_valid_signature_with_a_suffix_is_refused() -> None:
    assert AUTH.signing_sender(_plain(_signature("new-secret") + "0"), BODY) is None


def test_a_message_id_with_a_dot_is_refused() -> None:
    """`<id>.<seconds>.<body>` of `m1` could be read as that of `m1.5`, with its time within the signed text."""
    assert AUTH.signing_sender(_standard(message_id="m1"), BODY)
    assert AUTH.signing_sender(_standard(message_id="m1.5"), BODY) is None


def test_if_a_timestamp_is_required_a_signature_of_the_body_alone_is_refused() -> None:
    strict = WebhookAuth(["new-secret", STANDARD], now_s=lambda: float(NOW), timestamp_required=True)
    assert strict.signing_sender(_stamped(), BODY) and strict.signing_sender(_standard(), BODY)
    assert strict.signing_sender(_plain(_signature("dead-secret")), BODY) is None
    with pytest.raises(ExpiredSignature) as caught:
        strict.signing_sender(_plain(_signature("new-secret")), BODY)
    assert caught.value.reason == "unstamped_signature"


@pytest.mark.parametrize(
    ("credential", "host", "starts"),
    [
        ("a" * 16, "0.0.0.0", True),
        ("a" * 15, "0.0.0.0", False),
        ("é" * 8, "10.0.0.1", True),
        ("a" * 8, "127.0.0.1", True),
        ("a" * 8, "[::1]", True),
        ("a" * 8, "localhost", True),
        ("a" * 7, "127.0.0.1", False),
        ("whsec_" + b64encode(b"a" * 16).decode(), "::", True),
        ("whsec_" + b64encode(b"a" * 15).decode(), "::", False),
    ],
)
def test_a_short_credential_stops_the_start_and_is_not_repeated(credential: str, host: str, starts: bool) -> None:
    """Also if another credential is long enough."""
    both = ["a-credential-that-is-long-enough", credential]
    if starts:
        check_strength("WEBHOOK_TOKEN", both, host)
        return
    with pytest.raises(ConfigurationError) as caught:
        check_strength("WEBHOOK_TOKEN", both, host)
    assert caught.value.reason == "WEBHOOK_TOKEN"
    assert "value 2" in str(caught.value) and credential not in str(caught.value)


@pytest.mark.parametrize("form", ["plain", "stamped", "standard"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_body_in_pieces_has_the_same_signature_as_the_whole(form: str, size: int) -> None:
    """A compressed body of an unauthenticated sender is decompressed and hashed piece by piece, and not kept."""
    headers = {"plain": _plain(_signature("new-secret")), "stamped": _stamped(), "standard": _standard()}[form]
    pieces = [BODY[at : at + size] for at in range(0, len(BODY), size)]
    assert AUTH.signing_sender(headers, iter(pieces)) == AUTH.signing_sender(headers, BODY) is not None
    assert AUTH.signing_sender(headers, iter([*pieces, b" "])) is None
    assert AUTH.signing_sender(headers, iter(pieces[:-1])) is None


@pytest.mark.parametrize(
    "header", ["old-token", " new-token", "Token old-token", "Bearer: new-token", "Basic x new-token"]
)
def test_a_token_without_its_scheme_is_known_but_admits_nobody(header: str) -> None:
    assert AUTH.has_other_scheme(header)
    assert AUTH.token_sender(header) is None


@pytest.mark.parametrize(
    "header", [None, "", " ", "other", "Token other", "Bearer old-token", "Bearer other", "old-toke"]
)
def test_no_other_header_says_that_only_the_scheme_is_wrong(header: str | None) -> None:
    assert not AUTH.has_other_scheme(header)
