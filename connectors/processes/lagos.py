"""The clients of all Lago organisations of one process."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from connectors.config.connections import lago_connections
from connectors.config.settings import Settings
from connectors.lago.client import LagoClient, lago_http

Requested = Callable[[str, str, int, float], None]


def _unwatched(_request: str, _method: str, _status: int, _seconds: float) -> None:
    """Count no requests."""


async def open_lagos(
    stack: AsyncExitStack,
    settings: Settings,
    connections: int,
    requested_of: Callable[[str], Requested] = lambda _organization: _unwatched,
) -> dict[str, LagoClient]:
    """Open a client of each organisation; return them by name, the default one (`""`) first. The stack closes them.

    Args:
        connections: to each of them, at most.
        requested_of: gives `on_request` of an organisation's client.
    """
    every = lago_connections(settings)
    others = [one.organization for one in every if not one.is_default]
    clients = {}
    for one in every:
        http = await stack.enter_async_context(lago_http(one.timeout_s, connections))
        clients[one.organization] = LagoClient(
            http,
            one.url,
            one.key,
            requested_of(one.organization),
            organization=one.organization,
            others=others if one.is_default else (),
        )
    return clients
