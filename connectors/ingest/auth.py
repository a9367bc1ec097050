"""Who may post: a sender that signs its body, or one that knows a token.

LiteLLM signs nothing and sends static headers, so either kind is enough. Several secrets and tokens
are valid at once, for rotation. Every comparison takes the same time whatever is wrong.
"""

import hmac
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from connectors.ingest.sender_signatures import Secret, claims_a_signature, signed_by
from schemas.errors import ConfigurationError, MeterbridgeError

#: Of a signature that names its second: how far that may be from our clock.
TOLERANCE_S = 300.0


class ExpiredSignature(MeterbridgeError):
    """A signature is right, but its time is not: repeated from a recording, a wrong clock, or no time where one is due."""


class WebhookAuth:
    """The secrets and tokens that are valid now; with neither, everybody is admitted.

    Args:
        tolerance_s: see `TOLERANCE_S`; its edges still count as in time.
        now_s: seconds since 1970 UTC.
        timestamp_required: a signature of the body alone, which never expires, admits nobody.

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
        """Neither secret nor token is configured."""
        return not self._secrets and not self._tokens

    def token_sender(self, authorization: str | None) -> str | None:
        """A name for whoever knows this token; None = no live token is named."""
        scheme, _, credentials = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        given, found = credentials.strip().encode("utf-8", "surrogateescape"), -1
        for place, token in enumerate(self._tokens):
            if hmac.compare_digest(given, token):
                found = place
        return f"token {found}" if found >= 0 else None

    def may_be_signed(self, headers: Mapping[str, str]) -> bool:
        """A signature could admit the sender, so the body has to be read before it is refused."""
        return bool(self._secrets) and claims_a_signature(headers)

    def signing_sender(self, headers: Mapping[str, str], body: bytes | Iterable[bytes]) -> str | None:
        """The name of the sender that signed the body's bytes (connectors/ingest/sender_signatures.py); None = unknown.

        Raises:
            Stale: the time that was signed is out of tolerance, or none was signed and one is required.
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


def check_exposure(auth: WebhookAuth, *, allow_unsigned: bool) -> None:
    """An ingress that admits everybody starts only where somebody said so, on loopback too: whoever runs a program on
    the same machine, or a proxy in front of it, could else bill anybody.

    Raises:
        ConfigurationError: neither secret nor token is set, and nobody said `ALLOW_UNSIGNED=1`.
    """
    if auth.is_open and not allow_unsigned:
        raise ConfigurationError(
            "WEBHOOK_TOKEN",
            "the webhooks would take usage from anybody: set WEBHOOK_TOKEN or WEBHOOK_SECRET; ALLOW_UNSIGNED=1 lets "
            "anybody in, for trying out or behind a proxy that authenticates",
        )
