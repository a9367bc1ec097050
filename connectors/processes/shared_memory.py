"""Loads modules before a worker of several roles forks its children, so that the children share the memory.

Everything that a child loads itself or uses first is in memory once for each child, for example a module, or a table
that a library builds at its first use. Most of a child's own memory has another cause: a child copies each page in
which it changes a reference count.
"""

import gc
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Final

#: Modules that libraries load only at their first use: httpx for its first client and its first request, asyncio for
#: its first thread, Faust when an app is made and started.
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
    """Yield the names of the modules that processes of these roles use, some of them twice."""
    yield from _OF_ALL
    for role in roles:
        yield from _OF_ROLES[role]
    yield from _BY_LIBRARIES


def prepare(roles: Iterable[str]) -> None:
    """Load the modules that processes of these roles use, and use them once. It starts no thread and opens no
    connection.
    """
    for module in modules_of(roles):
        import_module(module)
    _use_once()
    gc.collect()
    # A garbage collection writes to each object that it visits, and a changed page is no longer shared.
    gc.freeze()


def _use_once() -> None:
    """Make the objects that each child makes at its start, and drop them. The data that libraries keep for them is then
    shared.
    """
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
    """Do nothing: the work of an agent that is never started."""
