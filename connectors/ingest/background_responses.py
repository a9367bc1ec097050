"""Computes a stable id of a response that is read several times. Polls of a background response have no other stable
id.

LiteLLM's proxy encrypts the id of a response differently for each poll, unless `disable_responses_id_security` is set
(litellm/proxy/hooks/responses_id_security.py, since 1.108). Two fields of `response` are stable: the time when the
provider made it, and the id of its first output. Only a hash of the two is stored.
"""

from hashlib import sha256

import msgspec

from connectors.ingest.body_splitter import Element
from schemas.decoding import UNDECODABLE
from streams.core.metering.json_budget import Budget
from streams.core.metering.tolerant_reader import loose_json

_LENGTH = 32


class _Part(msgspec.Struct, gc=False):
    id: str | None = None


class _ResponseElement(msgspec.Struct, gc=False):
    created_at: float | int | None = None
    output: list[_Part] | None = None


class _Read(msgspec.Struct, gc=False):
    response: _ResponseElement | None = None


_read = msgspec.json.Decoder(_Read).decode


def answer_id_of(element: Element) -> str:
    """Return 32 hexadecimal digits that are equal in all reads of one finished response; `""` if the element contains
    no such response.
    """
    try:
        answer = _read(element).response
    except UNDECODABLE:
        answer = _loosely(element)
    if answer is None or answer.created_at is None:
        return ""
    part = next((part.id for part in answer.output or () if part.id), "")
    if not part:  # otherwise two responses of the same second would get the same id
        return ""
    return sha256(f"{int(answer.created_at)}|{part}".encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]


def _loosely(element: Element) -> _ResponseElement | None:
    """Read JSON as Python's senders write it: a `NaN` in another field does not change the answer."""
    if not Budget().takes(bytes(memoryview(element))):
        return None
    try:
        tree = loose_json(bytes(memoryview(element)).decode("utf-8", "replace"))
        response = tree["response"]
        parts = [_Part(part["id"]) for part in response.get("output") or () if isinstance(part.get("id"), str)]
        return _ResponseElement(float(response["created_at"]), parts)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def with_answer_id(text: bytes, element: Element) -> bytes:
    """Return the stored JSON of a call, with `answer_id` if the element has one."""
    answer_id = answer_id_of(element)
    return b'%b,"answer_id":"%b"}' % (text[:-1], answer_id.encode()) if answer_id else text
