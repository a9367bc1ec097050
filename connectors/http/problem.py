"""Errors as problem JSON (RFC 9457): a stable code and a sentence, without any text of the request's body."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

from schemas.errors import MeterbridgeError

#: Headers of a problem after which the connection must be closed.
CLOSES = {"Connection": "close"}


class Problem(MeterbridgeError):
    """Raised to answer a request with an error; `reason` is a stable code, `detail` a sentence, `members` are added to the
    JSON."""

    def __init__(
        self, status: int, reason: str, detail: str = "", headers: Mapping[str, str] | None = None, **members: object
    ) -> None:
        super().__init__(reason, detail)
        self.status = status
        self.headers = headers or {}
        self.members = members

    def body(self) -> bytes:
        """Return JSON with `type`, `title`, `status`, `detail` and `reason`."""
        members = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail or self.reason,
            "reason": self.reason,
            **self.members,
        }
        return msgspec.json.encode(members)

    def response(self) -> web.Response:
        """Return `application/problem+json`; see `body`."""
        response = web.Response(
            status=self.status,
            body=self.body(),
            content_type="application/problem+json",
            headers=self.headers,
        )
        if self.headers is CLOSES:
            response.force_close()
        return response


def try_again(reason: str, detail: str, after_s: int) -> Problem:
    """Return 503 with `Retry-After`. It is never 429, because LiteLLM drops usage that is answered with 429."""
    return Problem(503, reason, detail, {"Retry-After": str(after_s)})
