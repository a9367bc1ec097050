"""What a worker of several roles does before it forks its children, so that they share the memory.

What a child loads itself, or uses as the first, is in memory once for each child: a module, a table that a library builds at
its first use. Most of a child's own memory is neither: a child copies each page of which it counts the references.
"""

import gc
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Final

#: Loaded by libraries only when they are used: by httpx for its first client and its first request, by asyncio for its first
#: thread, by Faust when an app is made and started.
_BY_LIBRARIES: Final = (
    "concurrent.futures.thread",
    "httpcore",
    "anyio._backends._asyncio",
    "certifi",
    "encodings.idna",
    "faust.app.router",
    "faust.assignor.partition_assignor",
    "faust.fixups.django",
    "faust.stores.base",
    "faust.tables.globaltable",
    "faust.tables.manager",
    "faust.tables.objects",
    "faust.tables.sets",
    "faust.topics",
    "faust.transport.utils",
    "faust.worker",
)
_OF_ALL: Final = ("connectors.processes.worker_parts", "streams.app", "streams.state.orgs_table")
_DELIVERING: Final = (
    "streams.agents.organization_lanes",
    "streams.agents.sink",
    "streams.delivery.to_an_organization",
)
_OF_ROLES: Final = {
    "meter": (
        "streams.agents.meter",
        "streams.runtime.forwarding",
        "streams.state.held_on_disk",
        "streams.state.ledger",
    ),
    "sink": _DELIVERING,
    "retry": _DELIVERING,
    "project": ("connectors.processes.projector_tasks", "streams.agents.projector"),
}


def modules_of(roles: Iterable[str]) -> Iterator[str]:
    """The names of the modules that processes of these roles use. Some are there twice."""
    yield from _OF_ALL
    for role in roles:
        yield from _OF_ROLES[role]
    yield from _BY_LIBRARIES


def prepare(roles: Iterable[str]) -> None:
    """Load what processes of these roles use, and use it once. It starts no thread and opens no connection."""
    for module in modules_of(roles):
        import_module(module)
    _use_once()
    gc.collect()
    # A collection writes to each object that it looks at, and a page that is written to is no longer shared.
    gc.freeze()


def _use_once() -> None:
    """Make what each child makes at its start, and drop it: what libraries keep of it is then shared."""
    from prometheus_client import CollectorRegistry

    from connectors.lago.client import lago_http
    from connectors.processes.worker_parts import product_version
    from connectors.telemetry.metrics import Metrics
    from streams.runtime.faust_transport import App

    Metrics(CollectorRegistry(), product_version())
    lago_http(1.0, 1)
    app = App("unused", broker="aiokafka://localhost:1", store="memory://", web_enabled=False)
    app.route("unused", _no_work)


async def _no_work(_: object) -> None:
    """The work of an agent that is never started."""
