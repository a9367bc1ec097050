"""Lago's signature of a webhook: base64 of HMAC-SHA256 over the raw body, under the organization's key.

Lago escapes `<`, `>` and `&` in its JSON, so a body that was read and written again has another signature. No time is
signed: whoever has caught a webhook can send it again, and what is done about one must bear that.

By default Lago signs by JWT: the whole body stands in a header, which no server takes that is longer than 8 KB. So
the other way is asked for when the endpoint is registered (`meterbridge lago setup`), and this one is refused by name.
"""

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from schemas.errors import Rejected

SIGNATURE: Final = "X-Lago-Signature"
ALGORITHM: Final = "X-Lago-Signature-Algorithm"
UNIQUE_KEY: Final = "X-Lago-Unique-Key"


def check_signed(headers: Mapping[str, str]) -> bytes:
    """The signature that the headers show, before there is a body to hold it against.

    Raises:
        Rejected: `unsigned`, `signed_by_jwt`.
    """
    if headers.get(ALGORITHM, "hmac").strip().lower() == "jwt":
        raise Rejected(
            "signed_by_jwt", "the endpoint signs by JWT; register it with signature_algo hmac (meterbridge lago setup)"
        )
    given = headers.get(SIGNATURE, "").strip().encode("utf-8", "surrogateescape")
    if not given:
        raise Rejected("unsigned", f"there is no {SIGNATURE}")
    return given


def check_signature(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> None:
    """Return where one of `secrets` signed `body`; every one is compared, whatever is found.

    Raises:
        Rejected: `unsigned`, `signed_by_jwt`, `bad_signature`.
    """
    given = check_signed(headers)
    matches = [hmac.compare_digest(given, _signed(secret, body)) for secret in secrets]
    if not any(matches):
        raise Rejected("bad_signature", "no key of LAGO_WEBHOOK_SECRET signed this body")


def _signed(secret: str, body: bytes) -> bytes:
    return b64encode(hmac.digest(secret.encode(), body, sha256))
