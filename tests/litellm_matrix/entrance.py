"""The product's ingress with a recorder in front of it: what each proxy posted, and what the ingress stored."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from connectors.ingest.auth import WebhookAuth
from connectors.ingest.call_context import ContextFields
from connectors.ingest.store import ElementStore
from connectors.kafka.producer import Record
from schemas.errors import Rejected
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from tests.litellm_matrix.launched import SECRET, TOKEN
from tests.support.ingress import Ingress, serving
from tests.support.ports import free_port

_PATH = "/webhook/litellm/usage"
TOPICS = ("raw", "rejected")
_TAKEN = 202
#: Elements of one replayed post.
_REPLAYED = 50
#: Headers that belong to the connection, not to the body.
_OWN = frozenset({"host", "content-length", "connection", "accept", "accept-encoding"})


@dataclass
class Stored:
    """A store in memory."""

    records: list[Record] = field(default_factory=list)

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        self.records += records
        return {}

    def element_store(self, received_us: int | None = None) -> ElementStore:
        """The ingress's store in front of it. Args: received_us: the time of every receipt; None = now."""

        def now() -> int:
            return time.time_ns() // 1000 if received_us is None else received_us

        return ElementStore(self, *TOPICS, CUSTOMER_ID_FIELDS, now, ContextFields())


@dataclass
class Entrance:
    """Accepts posts at `/ENDPOINT/webhook/litellm/usage`; each endpoint has its own store.

    Fields:
        bodies: what was posted and taken, by endpoint, in order.
        statuses: the answers, by endpoint.
        refuse: how many posts that contain a text are answered 503; slow: seconds until a post is answered.
    """

    ingresses: dict[str, Ingress]
    stores: dict[str, Stored]
    refuse: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    bodies: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    statuses: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    changed_s: float = field(default_factory=time.monotonic)
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        """Forward a post to the ingress, and record it."""
        endpoint, body = request.match_info["endpoint"], await request.read()
        await asyncio.sleep(self.slow.get(endpoint, 0))
        text, left = self.refuse.get(endpoint, (b"", 0))
        if left and text in body:
            self.refuse[endpoint] = (text, left - 1)
            self.statuses[endpoint].append(503)
            return web.Response(status=503)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        return await self.post(endpoint, body, headers)

    async def post(self, endpoint: str, body: bytes, headers: Mapping[str, str]) -> web.Response:
        """Post to the ingress of an endpoint."""
        answer = await self.ingresses[endpoint].client.post(_PATH, data=body, headers=headers)
        result = await answer.read()
        self.statuses[endpoint].append(answer.status)
        if answer.status == _TAKEN:
            self.bodies[endpoint].append(body)
        self.changed_s = time.monotonic()
        return web.Response(status=answer.status, body=result, content_type="application/json")

    def elements(self, endpoint: str) -> list[Any]:
        """All elements that were accepted at an endpoint."""
        return [element for body in self.bodies[endpoint] for element in elements_of(body)]


def elements_of(body: bytes) -> list[Any]:
    """The elements of a body in any of LiteLLM's formats."""
    try:
        whole = json.loads(body)
        return whole if isinstance(whole, list) else [whole]
    except ValueError:
        return [json.loads(line) for line in body.splitlines() if line.strip()]


@asynccontextmanager
async def entrance(endpoints: Iterable[str]) -> AsyncIterator[Entrance]:
    """An ingress for each endpoint and the recorder in front of them, on loopback."""
    auth, stores = WebhookAuth((SECRET,), (TOKEN,)), {endpoint: Stored() for endpoint in endpoints}
    async with AsyncExitStack() as stack:
        ingresses = {
            name: await stack.enter_async_context(serving(store.element_store(), auth=auth))
            for name, store in stores.items()
        }
        taking = Entrance(ingresses, stores)
        app = web.Application(client_max_size=1 << 28)
        app.add_routes([web.post("/{endpoint}" + _PATH, taking.take)])
        runner, port = web.AppRunner(app, access_log=None), free_port()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        taking.url = f"http://127.0.0.1:{port}"
        try:
            yield taking
        finally:
            await runner.cleanup()


async def replayed(elements: Sequence[Any], received_us: int) -> list[Record]:
    """What the ingress stores of recorded elements, received at a recorded time."""
    stored = Stored()
    async with serving(stored.element_store(received_us), auth=WebhookAuth((), (TOKEN,))) as ingress:
        headers = {"Authorization": "Bearer " + TOKEN}
        for start in range(0, len(elements), _REPLAYED):
            body = json.dumps(elements[start : start + _REPLAYED])
            answer = await ingress.client.post(_PATH, data=body, headers=headers)
            assert answer.status == _TAKEN, answer.status
    return stored.records
