"""The management API, and how routes become an application."""

from collections.abc import Callable, Iterable

from aiohttp import web

from connectors.http.auth import WebhookAuth
from connectors.http.health import json_response
from connectors.http.mapping import mapping_routes
from connectors.http.middleware import Door
from connectors.http.problem import try_again
from connectors.mappings import Mappings
from streams.core.tally import Totals

_RETRY_S = 5


def create_app(door: Door, *routes: Iterable[web.RouteDef]) -> web.Application:
    """An application of all `routes` behind `door`."""
    app = web.Application(middlewares=[door.passing])
    for some in routes:
        app.add_routes(some)
    return app


def api_routes(mappings: Mappings, auth: WebhookAuth, totals: Callable[[], Totals | None]) -> list[web.RouteDef]:
    """The management API.

    Args:
        auth: knows the master key; knows nobody where none is configured.
        totals: of all receipts; None while they are still being read.
    """

    async def metrics(_: web.Request) -> web.Response:
        """Totals as JSON: events of Lago in each state, and customers whose mapping in force is active."""
        counted = totals()
        if counted is None:
            raise try_again("counting", "the receipts have not been read to their end yet", _RETRY_S)
        return json_response({**counted._asdict(), "active_customers": mappings.active_customers()})

    return [web.get("/metrics", metrics), *mapping_routes(mappings, auth)]
