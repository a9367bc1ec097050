"""JSON requests and responses: the HTTP code that every endpoint shares."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web
from multidict import MultiMapping

from connectors.lago_sandbox.refusals import SandboxRefusal, malformed, missing_root
from schemas.decoding import UNDECODABLE

PER_PAGE = 100


def json_answer(payload: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON response."""
    body = msgspec.json.encode(payload)
    return web.Response(body=body, status=status, content_type="application/json", charset="utf-8", headers=headers)


def refused(refusal: SandboxRefusal) -> web.Response:
    """The response of a refusal."""
    return json_answer(refusal.body, refusal.status)


async def read_json(request: web.Request) -> bytes:
    """Return the body; an empty object when its Content-Type is not JSON, because Rails does not parse it then."""
    body = await request.read()
    return body if body and "json" in request.headers.get("Content-Type", "") else b"{}"


async def read_object(request: web.Request, root: str) -> dict[str, Any]:
    """Return the object under the root key.

    Raises:
        SandboxRefusal: 400 when the body is not JSON, or the root key is absent or empty.
    """
    sent = (await read_whole(request)).get(root)
    if not isinstance(sent, dict) or not sent:
        raise missing_root(root)
    return sent


async def read_whole(request: web.Request) -> dict[str, Any]:
    """Return a body without a root key; empty where it is no object. Raises: SandboxRefusal: 400 when it is not JSON."""
    try:
        document = msgspec.json.decode(await read_json(request))
    except UNDECODABLE as error:
        raise malformed() from error
    return document if isinstance(document, dict) else {}


def page(items: Sequence[Any], query: MultiMapping[str]) -> tuple[Sequence[Any], dict[str, int | None]]:
    """Return one page of a list by `page` and `per_page`, and Lago's `meta`; an empty list is page 0 of 0."""
    number, size = _count(query.get("page"), 1), _count(query.get("per_page"), PER_PAGE)
    pages = -(-len(items) // size)
    meta = {
        "current_page": number if items else 0,
        "next_page": number + 1 if number < pages else None,
        "prev_page": number - 1 if items and number > 1 else None,
        "total_pages": pages,
        "total_count": len(items),
    }
    return items[(number - 1) * size : number * size], meta


def _count(text: str | None, default: int) -> int:
    return max(1, int(text)) if text and text.isdecimal() else default
