"""Checks signatures of bodies: finds the secret that signed a body, and the signed time. HMAC-SHA256 is accepted in
three forms.

| header | signed text | key |
|---|---|---|
| `X-Webhook-Signature: sha256=<hex>`, or the hex alone | the body | the secret as it is set |
| `X-Webhook-Signature: t=<seconds>,v1=<hex>` | `<seconds>.<body>` | the secret as it is set |
| `webhook-signature: v1,<base64>` with `webhook-id` and `webhook-timestamp` | `<id>.<seconds>.<body>` | the base64 after `whsec_`, decoded |

The first form is GitHub's, the second Stripe's, the third of standardwebhooks.com. The last two may contain several
signatures, for rotation at the sender. A body is signed before any Content-Encoding. An id must not contain a dot
(standardwebhooks.com): otherwise `<id>.<seconds>.<body>` could be split in two ways, with another time.
"""

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from multidict import istr

from schemas.errors import ConfigurationError

#: `istr`: aiohttp's headers find it without lowering its letters for each request.
OURS, STANDARD = istr("X-Webhook-Signature"), istr("webhook-signature")

_PREFIX, _STAMPED, _STANDARD_PREFIX = "sha256=", "t=", "whsec_"


@dataclass(frozen=True, slots=True)
class Secret:
    """A valid secret: `text` as it is set, `key` as Standard Webhooks decodes it."""

    text: bytes
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, text: str) -> "Secret":
        """Decode a configured secret. Raises: ConfigurationError: nothing follows `whsec_`, or it is not base64."""
        if not text.startswith(_STANDARD_PREFIX):
            return cls(text.encode(), text.encode())
        try:
            key = b64decode(text.removeprefix(_STANDARD_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not key:
            raise ConfigurationError("WEBHOOK_SECRET", "WEBHOOK_SECRET is not base64 after whsec_")
        return cls(text.encode(), key)


class Signed(NamedTuple):
    """The index of the secret that signed, and the signed time in seconds since 1970 UTC, if there is one."""

    place: int
    at_s: int | None


def claims_a_signature(headers: Mapping[str, str]) -> bool:
    """Return whether the headers contain a signature, which can be checked after the body was read."""
    return OURS in headers or STANDARD in headers


def signed_by(headers: Mapping[str, str], body: bytes | Iterable[bytes], secrets: Sequence[Secret]) -> Signed | None:
    """Return the secret that signed `body`; None = no valid one. The time is not checked here.

    Args:
        body: the whole body, or an iterable of its pieces.
    """
    if isinstance(body, bytes):
        header = headers.get(OURS)
        if header is not None and not (header := header.strip()).startswith(_STAMPED):
            signed = _plainly_signed(header, body, secrets)
        else:
            signed = _signed_whole(_ours(headers, secrets), body)
        return signed or _signed_whole(_standard(headers, secrets), body)
    forms = [form for form in (_ours(headers, secrets), _standard(headers, secrets)) if form is not None]
    for piece in body:
        for form in forms:
            for mac in form.macs:
                mac.update(piece)
    return next((signed for form in forms if (signed := _signed(form.given, _ends(form), form.at_s)) is not None), None)


def _plainly_signed(header: str, body: bytes, secrets: Sequence[Secret]) -> Signed | None:
    """Check the first form for a whole body. Almost all signed requests are like this, and this takes half of the time
    of the general way.
    """
    given, index = header.removeprefix(_PREFIX).lower().encode("utf-8", "surrogateescape"), -1
    for place, secret in enumerate(secrets):
        mac = _begun(secret.text, b"")
        mac.update(body)
        if hmac.compare_digest(given, _hex(mac)):
            index = place
    return Signed(index, None) if index >= 0 else None


def _signed_whole(form: "_Form | None", body: bytes) -> Signed | None:
    if form is None:
        return None
    for mac in form.macs:
        mac.update(body)
    return _signed(form.given, _ends(form), form.at_s)


def _ends(form: "_Form") -> Iterable[bytes]:
    return map(form.encode, form.macs)


class _Form(NamedTuple):
    """A form of signature in the headers: the given signatures, and how to compute the correct one of each secret."""

    given: Sequence[str]
    macs: Sequence[hmac.HMAC]
    encode: Callable[[hmac.HMAC], bytes]
    at_s: int | None


def _ours(headers: Mapping[str, str], secrets: Sequence[Secret]) -> _Form | None:
    header = headers.get(OURS)
    if header is None:
        return None
    header = header.strip()
    if not header.startswith(_STAMPED):
        return _Form(
            (header.removeprefix(_PREFIX).lower(),), [_begun(secret.text, b"") for secret in secrets], _hex, None
        )
    parts = [part.strip().partition("=") for part in header.split(",")]
    stamp = next(value for name, _, value in parts if name == "t")
    if (at_s := _seconds(stamp)) is None:
        return None
    given = [value.lower() for name, _, value in parts if name == "v1"]
    return _Form(given, [_begun(secret.text, b"%b." % stamp.encode()) for secret in secrets], _hex, at_s)


def _standard(headers: Mapping[str, str], secrets: Sequence[Secret]) -> _Form | None:
    if STANDARD not in headers:
        return None
    stamp, message_id = headers.get("webhook-timestamp", ""), headers.get("webhook-id", "")
    if (at_s := _seconds(stamp)) is None or not message_id or "." in message_id:
        return None
    before = b"%b.%b." % (message_id.encode("utf-8", "surrogateescape"), stamp.encode())
    given = [part.removeprefix("v1,") for part in headers[STANDARD].split() if part.startswith("v1,")]
    return _Form(given, [_begun(secret.key, before) for secret in secrets], lambda mac: b64encode(mac.digest()), at_s)


def _signed(given: Sequence[str], right: Iterable[bytes], at_s: int | None) -> Signed | None:
    """Compares every given signature with every correct one, so the time does not show which one matches."""
    index = -1
    signatures = [signature.encode("utf-8", "surrogateescape") for signature in given]
    for place, signature in enumerate(right):
        for one in signatures:
            if hmac.compare_digest(one, signature):
                index = place
    return Signed(index, at_s) if index >= 0 else None


def _hex(mac: hmac.HMAC) -> bytes:
    return mac.digest().hex().encode()


def _begun(key: bytes, before: bytes) -> hmac.HMAC:
    """Return a copied HMAC object. Unlike `hmac.digest` it keeps the interpreter lock; releasing the lock costs more
    for a small body.
    """
    mac = _keyed(key).copy()
    if before:
        mac.update(before)
    return mac


@lru_cache(maxsize=32)
def _keyed(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod=sha256)


def _seconds(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else None
