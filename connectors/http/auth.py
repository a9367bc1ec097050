"""Who may post: a sender that signs its body, or one that knows a token.

LiteLLM signs nothing and sends static headers, so either kind is enough. Several secrets and tokens
are valid at once, for rotation. Every comparison takes the same time whatever is wrong.
"""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from ipaddress import ip_address

from schemas.errors import ConfigurationError

_PREFIX = "sha256="


class WebhookAuth:
    """The secrets and tokens that are valid now; with neither, everybody is admitted."""

    def __init__(self, secrets: Sequence[str] = (), tokens: Sequence[str] = ()) -> None:
        self._secrets = [secret.encode() for secret in secrets if secret]
        self._tokens = [token.encode() for token in tokens if token]

    @property
    def is_open(self) -> bool:
        """Neither secret nor token is configured."""
        return not self._secrets and not self._tokens

    @property
    def reads_signatures(self) -> bool:
        """A signature can admit a sender, so a body has to be read before it is refused."""
        return bool(self._secrets)

    def knows_token(self, authorization: str | None) -> bool:
        """`Authorization: Bearer <token>` (RFC 6750; the scheme in any case) names a live token."""
        scheme, _, credentials = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        return _is_one_of(credentials.strip().encode("utf-8", "surrogateescape"), self._tokens)

    def knows_signature(self, signature: str | None, body: bytes) -> bool:
        """`X-Webhook-Signature`: hex HMAC-SHA256 of the body under a live secret, `sha256=` before it or not.

        The body's bytes are those before any Content-Encoding.
        """
        if not signature:
            return False
        given = signature.strip().removeprefix(_PREFIX).lower().encode("utf-8", "surrogateescape")
        return _is_one_of(given, [hmac.digest(secret, body, sha256).hex().encode() for secret in self._secrets])


def check_exposure(host: str, auth: WebhookAuth, *, allow_unsigned: bool) -> None:
    """An ingress that admits everybody may listen on loopback only.

    Raises:
        ConfigurationError: neither secret nor token is set, `host` is reachable from outside, and
            nobody said `ALLOW_UNSIGNED=1`.
    """
    if auth.is_open and not allow_unsigned and not _is_loopback(host):
        raise ConfigurationError(
            "WEBHOOK_TOKEN",
            f"on {host or 'every address'} the webhooks would take usage from anybody: set WEBHOOK_TOKEN or "
            "WEBHOOK_SECRET, listen on 127.0.0.1, or set ALLOW_UNSIGNED=1",
        )


def _is_one_of(given: bytes, live: Sequence[bytes]) -> bool:
    found = False
    for value in live:
        found |= hmac.compare_digest(given, value)
    return found


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
