"""Limits of a request to the management API: its path parameters, and the size and time of its body."""

import asyncio
import re
from collections.abc import Collection, Mapping
from typing import Final

from aiohttp import web

from connectors.http.content_encoding import Unpacker
from connectors.http.problem import CLOSES, Problem

#: Bytes of a decompressed body.
MAX_BODY: Final = 1 << 20
_BODY_S: Final = 30.0
_CHUNK: Final = 1 << 16

BAD_PATH: Final = "bad_path"
PART_PATTERN: Final = r"[^\x00-\x1f\x7f/\\]{1,255}"
_PART = re.compile(PART_PATTERN)
#: `.` and `..` between slashes, also encoded. Clients remove them from a path, so if they arrive, the sender put them
#: there on purpose.
_DOTS = re.compile(r"(^|/|\\|%2f|%5c)(\.|%2e){1,2}(/|\\|%2f|%5c|\?|$)", re.IGNORECASE)


def is_tricky(raw_path: str) -> bool:
    """Return whether a path, as it was sent, has dot segments, or an encoded separator or control character."""
    path = raw_path.partition("?")[0]
    return bool(_DOTS.search(path) or re.search(r"%(2f|5c|0[0-9a-f]|1[0-9a-f]|7f)", path, re.IGNORECASE))


def check_parts(parts: Mapping[str, str], any_text: Collection[str] = ()) -> None:
    """Check decoded path parameters, except those in `any_text`.

    Raises:
        Problem: 400 `bad_path`.
    """
    for name, value in parts.items():
        if name not in any_text and (not _PART.fullmatch(value) or value in (".", "..")):
            raise Problem(
                400,
                BAD_PATH,
                f"{name} must be 1 to 255 characters without slashes and control characters, and not . or ..",
            )


async def body_of(request: web.Request, max_bytes: int = MAX_BODY) -> bytes:
    """Return the decompressed body.

    Raises:
        Problem: 413 `body_too_large`, 408 `body_too_slow`, 415 `unknown_encoding`, 400 `bad_encoding`. The connection is
            closed after the response.
    """
    unpacker = Unpacker(request.headers.get("Content-Encoding", ""))
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.content.iter_chunked(_CHUNK):
                for piece in unpacker.pieces(chunk):
                    body += piece
                    if len(body) > max_bytes:
                        raise _too_large(max_bytes)
    except TimeoutError:
        raise Problem(408, "body_too_slow", "the body did not arrive in time", CLOSES) from None
    unpacker.end()
    return bytes(body)


def _too_large(max_bytes: int) -> Problem:
    return Problem(413, "body_too_large", f"a body may have {max_bytes} bytes", CLOSES)
