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
    """Return the two routes. The document is made at the first request.

    Args:
        endpoints: all endpoints of the application.
        issuer: `OIDC_ISSUER`; `""` = users have no access.
    """

    @cache
    def document_of(app: web.Application) -> dict[str, Any]:
        return document(endpoints, served(app), issuer)

    async def openapi(request: web.Request) -> web.Response:
        body = msgspec.json.encode(document_of(request.app))
        return web.Response(body=body, content_type="application/json", headers=_HEADERS)

    async def docs(request: web.Request) -> web.Response:
        headers = {**_HEADERS, "Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        return web.Response(text=page_of(document_of(request.app)), content_type="text/html", headers=headers)

    return [web.get("/openapi.json", openapi), web.get("/docs", docs)]
