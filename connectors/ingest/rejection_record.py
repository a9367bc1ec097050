"""The reason why the ingress refuses an element, and the record of the refusal."""

from hashlib import sha256

import msgspec
from msgspec import Raw

from schemas.errors import Rejected
from schemas.records import Rejection

#: Limit of a stored record, below Kafka's own limit (`message.max.bytes` is 1 000 000 by default).
MAX_RECORD_BYTES = 900_000

_encode = msgspec.json.Encoder().encode


class InvalidElement(Rejected):
    """An element, or a whole body, that can never be metered.

    Attributes:
        call: the allowed rest as JSON, if the element could be decoded.
        offset: byte of the first error in the element, if it could not.
    """

    def __init__(self, reason: str, detail: str = "", *, call: bytes | None = None, offset: int | None = None) -> None:
        super().__init__(reason, detail)
        self.call = call
        self.offset = offset


def rejection(refused: InvalidElement, element: bytes, at: int) -> bytes:
    """Return the value for `litellm.usage.rejected`: the valid rest of the call; without one, the length and SHA-256 of
    the element.

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
    """Return the value for many elements that share a record.

    Args:
        length, digest: bytes and SHA-256 (hexadecimal) of all elements one after the other.
        at: microseconds since 1970 UTC.
    """
    return _encode(Rejection(refused.reason, "ingress", at, refused.detail, length=length, sha256=digest))
