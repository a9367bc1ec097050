"""The endpoints of outgoing webhooks and the signature of a message.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """An endpoint. The URL may contain a token, so neither a log nor a table has it."""

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """The name of the endpoint in tables: a hash of its URL."""
        return sha256(self.url.encode()).hexdigest()[:16]

    @property
    def host(self) -> str:
        """The name of the endpoint for people."""
        return urlsplit(self.url).hostname or ""


def headers_of(message_id: str, at_s: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """Return the headers of one attempt.

    Args:
        message_id: id without a dot, the same in all attempts.
        at_s: time of this attempt, seconds since 1970 UTC. A receiver refuses an attempt whose time differs much from
            its own.
        secrets: values like `whsec_...`. The message is signed with each of them.
    """
    signed = f"{message_id}.{at_s}.".encode() + body
    keys = (b64decode(secret.removeprefix("whsec_")) for secret in secrets)
    signatures = (b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
