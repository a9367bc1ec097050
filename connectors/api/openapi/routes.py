"""`GET /openapi.json` and `GET /docs`: the description of the API. They need no credential."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from aiohttp import web

from connectors.api.openapi.document import document, served
from connectors.api.openapi.page import POLICY, page_of
from connectors.http.endpoint import Endpoint

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}


def openapi_routes(endpoints: Sequence[Endpoint], issuer: str = "") -> list[web.RouteDef]:
    """Return the two routes. The document and the page are made at the first request, because making them takes
    milliseconds, and anybody may ask for them.

    Args:
        endpoints: all endpoints of the application.
        issuer: `OIDC_ISSUER`; `""` = users have no access.
    """

    @cache
    def document_of(app: web.Application) -> dict[str, Any]:
        return document(endpoints, served(app), issuer)

    @cache
    def encoded(app: web.Application) -> bytes:
        return msgspec.json.encode(document_of(app))

    @cache
    def page(app: web.Application) -> bytes:
        return page_of(document_of(app)).encode()

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=encoded(request.app), content_type="application/json", headers=_HEADERS)

    async def docs(request: web.Request) -> web.Response:
        headers = {**_HEADERS, "Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        return web.Response(body=page(request.app), content_type="text/html", charset="utf-8", headers=headers)

    return [web.get("/openapi.json", openapi), web.get("/docs", docs)]
