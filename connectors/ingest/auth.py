"""Authenticates senders of usage: by a signature of the body, or by a token.

LiteLLM cannot sign a body, but it sends fixed headers, so one of the two is enough. Several secrets and tokens may be valid
at the same time, for rotation. Every comparison with a wrong credential takes the same time.
"""

import hmac
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from connectors.ingest.sender_signatures import Secret, claims_a_signature, signed_by
from schemas.errors import ConfigurationError, MeterbridgeError

#: How many seconds the time in a signature may differ from our clock.
TOLERANCE_S = 300.0


class ExpiredSignature(MeterbridgeError):
    """The signature is correct, but its time is not accepted: the request is replayed, a clock is wrong, or the
    required time is missing.
    """


class WebhookAuth:
    """The valid secrets and tokens. Without any, every sender is admitted.

    Args:
        tolerance_s: see `TOLERANCE_S`; a difference of exactly this much is accepted.
        now_s: seconds since 1970 UTC.
        timestamp_required: refuse a signature without a time, because it would never expire.

    Raises:
        ConfigurationError: a secret is malformed.
    """

    def __init__(
        self,
        secrets: Sequence[str] = (),
        tokens: Sequence[str] = (),
        tolerance_s: float = TOLERANCE_S,
        now_s: Callable[[], float] = time.time,
        *,
        timestamp_required: bool = False,
    ) -> None:
        self._secrets = [Secret.of(secret) for secret in secrets if secret]
        self._tokens = [token.encode() for token in tokens if token]
        self._tolerance_s = tolerance_s
        self._now_s = now_s
        self._timestamp_required = timestamp_required

    @property
    def is_open(self) -> bool:
        """Whether neither a secret nor a token is configured."""
        return not self._secrets and not self._tokens

    def token_sender(self, authorization: str | None) -> str | None:
        """Return a name for the sender with this token (`Authorization: Bearer <token>`, RFC 6750); None = no valid
        token.
        """
        if authorization is None:
            return None
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        index = self._place(credentials.strip())
        return f"token {index}" if index >= 0 else None

    def has_other_scheme(self, authorization: str | None) -> bool:
        """Return whether the header ends with a valid token, but does not begin with `Bearer`. Only who knows the token can learn that."""
        words = (authorization or "").split()
        return bool(words) and words[0].lower() != "bearer" and self._place(words[-1]) >= 0

    def _place(self, credentials: str) -> int:
        """The place of the token; -1 = it is not valid."""
        given, index = credentials.encode("utf-8", "surrogateescape"), -1
        for place, token in enumerate(self._tokens):
            if hmac.compare_digest(given, token):
                index = place
        return index

    def may_be_signed(self, headers: Mapping[str, str]) -> bool:
        """Return whether a signature could admit the sender, so that the body must be read before it is refused."""
        return bool(self._secrets) and claims_a_signature(headers)

    def signing_sender(self, headers: Mapping[str, str], body: bytes | Iterable[bytes]) -> str | None:
        """Return the name of the sender that signed the body (connectors/ingest/sender_signatures.py); None = no known
        secret signed it.

        Raises:
            ExpiredSignature: the time in the signature is out of tolerance, or it is missing although it is required.
        """
        signed = signed_by(headers, body, self._secrets)
        if signed is None:
            return None
        if signed.at_s is None and self._timestamp_required:
            raise ExpiredSignature(
                "unstamped_signature", "the signature has no time: sign t=<seconds>,v1=<hex of <seconds>.<body>>"
            )
        if signed.at_s is not None and abs(self._now_s() - signed.at_s) > self._tolerance_s:
            raise ExpiredSignature(
                "stale_signature", f"signed more than {self._tolerance_s:g} s away from this server's clock"
            )
        return f"secret {signed.place}"


def check_exposure(auth: WebhookAuth, *, allow_unauthenticated: bool) -> None:
    """Refuse to start an ingress without credentials unless the operator allows it. This holds on loopback too: another program on
    the machine, or a proxy in front of the ingress, could let anybody bill any customer.

    Raises:
        ConfigurationError: neither a secret nor a token is set, and `ALLOW_UNAUTHENTICATED=1` is not set.
    """
    if auth.is_open and not allow_unauthenticated:
        raise ConfigurationError(
            "WEBHOOK_TOKEN",
            "the webhooks would accept usage from anybody: set WEBHOOK_TOKEN or WEBHOOK_SECRET; ALLOW_UNAUTHENTICATED=1 lets "
            "anybody in, for trying out or behind a proxy that authenticates",
        )
