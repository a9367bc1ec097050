"""Lago's signature of a webhook: base64 of HMAC-SHA256 over the raw body, with the organization's key.

Lago escapes `<`, `>` and `&` in its JSON, so a body that is decoded and encoded again has another signature. The
signature has no time, so an attacker can repeat a recorded webhook. Handling a webhook twice must therefore do no harm.

By default Lago signs with a JWT that has the whole body in a header, and no server accepts a header of more than 8 KB. So
`meterbridge lago setup` registers the endpoint with HMAC, and a JWT is refused with its own reason.
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
    """Return the signature in the headers. This check needs no body.

    Raises:
        Rejected: `unsigned`, `signed_by_jwt`.
    """
    if headers.get(ALGORITHM, "hmac").strip().lower() == "jwt":
        raise Rejected(
            "signed_by_jwt", "the endpoint signs by JWT; register it with signature_algo hmac (meterbridge lago setup)"
        )
    given = headers.get(SIGNATURE, "").strip().encode("utf-8", "surrogateescape")
    if not given:
        raise Rejected("unsigned", f"the header {SIGNATURE} is missing")
    return given


def check_signature(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> str:
    """Return the secret in `secrets` that signed `body`. All secrets are compared, so the duration does not reveal
    which one matches.

    Raises:
        Rejected: `unsigned`, `signed_by_jwt`, `bad_signature`.
    """
    given = check_signed(headers)
    matches = [hmac.compare_digest(given, b64encode(hmac.digest(secret.encode(), body, sha256))) for secret in secrets]
    if not any(matches):
        raise Rejected("bad_signature", "no key of LAGO_WEBHOOK_SECRET signed this body")
    return secrets[matches.index(True)]
