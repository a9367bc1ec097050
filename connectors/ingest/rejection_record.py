"""Why the ingress refuses an element, and the record that keeps the refusal."""

from hashlib import sha256

import msgspec
from msgspec import Raw

from schemas.errors import Rejected
from schemas.records import Rejection

#: Of a stored record; below Kafka's own limits (`message.max.bytes` is 1 000 000 by default).
MAX_RECORD_BYTES = 900_000

_encode = msgspec.json.Encoder().encode


class InvalidElement(Rejected):
    """One element, or a whole body, that can never be metered.

    Attributes:
        call: the allow-listed rest as JSON, when the element could be parsed.
        offset: byte of the first error in the element, when it could not.
    """

    def __init__(self, reason: str, detail: str = "", *, call: bytes | None = None, offset: int | None = None) -> None:
        super().__init__(reason, detail)
        self.call = call
        self.offset = offset


def rejection(refused: InvalidElement, element: bytes, at: int) -> bytes:
    """The value for `litellm.usage.rejected`: the call's sound rest, or of the element only length and SHA-256.

    Args:
        at: microseconds since 1970 UTC.
    """
    if refused.call is not None and len(refused.call) <= MAX_RECORD_BYTES:
        return _encode(Rejection(refused.reason, "ingress", at, refused.detail, call=Raw(refused.call)))
    return _encode(
        Rejection(
            refused.reason,
            "ingress",
            at,
            refused.detail,
            length=len(element),
            sha256=sha256(element).hexdigest(),
            error_offset=refused.offset,
        )
    )


def shared_rejection(refused: InvalidElement, length: int, digest: str, at: int) -> bytes:
    """The value for many elements that share a record.

    Args:
        length, digest: of all of them, one after the other; the SHA-256 in hexadecimal.
        at: microseconds since 1970 UTC.
    """
    return _encode(Rejection(refused.reason, "ingress", at, refused.detail, length=length, sha256=digest))
