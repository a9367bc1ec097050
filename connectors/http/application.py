"""Builds the aiohttp application of a process."""

from collections.abc import Iterable, Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware

from connectors.http.content_encoding import PACKED
from connectors.http.middleware import RequestTracker


def create_app(
    door: RequestTracker, *routes: Iterable[web.RouteDef], watching: Sequence[Middleware] = ()
) -> web.Application:
    """An application with all `routes`. Each request passes `door`, then the middlewares of `watching`."""
    app = web.Application(handler_args=PACKED, middlewares=[door.passing, *watching])
    for some in routes:
        app.add_routes(some)
    return app
