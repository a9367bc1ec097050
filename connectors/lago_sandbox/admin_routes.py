"""Endpoints that Lago does not have: tests use them to inspect the sandbox and to make it fail."""

from typing import Any

import msgspec
from aiohttp import web

from connectors.lago_sandbox.answers import json_answer
from connectors.lago_sandbox.event_routes import EventRoutes
from connectors.lago_sandbox.faults import FaultOrder, Faults
from connectors.lago_sandbox.limits import SandboxLimits
from connectors.lago_sandbox.state import Sandbox
from connectors.lago_sandbox.stored_event import Event
from schemas.decoding import UNDECODABLE

_CHUNK = 1000

_order = msgspec.json.Decoder(FaultOrder)


class AdminRoutes:
    """`/__stats`, `/__events`, `/__reset`, `/__faults`; they need no key."""

    def __init__(self, sandbox: Sandbox, faults: Faults, events: EventRoutes, limits: SandboxLimits | None) -> None:
        self._sandbox = sandbox
        self._limits = limits
        self._faults = faults
        self._events = events

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, with their handlers."""
        return [
            web.get("/__stats", self.stats),
            web.get("/__events", self.events),
            web.post("/__reset", self.reset),
            web.post("/__faults", self.arm),
            web.get("/__faults", self.faults),
            web.delete("/__faults", self.disarm),
        ]

    async def stats(self, _: web.Request) -> web.Response:
        """Sums by subscription and overall, and the number of posts; decimals as plain text.

        `cents` counts every copy that the store keeps. `billed_cents` counts those inside a period of their
        subscription that arrived before its invoice was made. `conflicts`: ids sent with two contents, accepted or not.
        `unaccepted`: ids that were sent and never accepted. `limited`: requests above the rate limit.
        """
        sandbox = self._sandbox
        sandbox.current_subscriptions(sandbox.now_us())
        totals = sandbox.events.log.totals
        return json_answer(
            {
                "store": sandbox.events.kind,
                "subscriptions": totals.read(),
                "totals": totals.overall(),
                "posts": sandbox.posts,
                "batches": sandbox.batches,
                "duplicates": sandbox.events.duplicates,
                "conflicts": len(sandbox.offers.conflicts),
                "unaccepted": sandbox.offers.unaccepted,
                "limited": self._limits.refused if self._limits else 0,
            }
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Return every accepted copy as NDJSON, in order of arrival; `accepted_at` in seconds since 1970 UTC."""
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        accepted = list(self._sandbox.events.log)
        for start in range(0, len(accepted), _CHUNK):
            lines = (msgspec.json.encode(self._as_object(event)) for event in accepted[start : start + _CHUNK])
            await response.write(b"\n".join(lines) + b"\n")
        await response.write_eof()
        return response

    def _as_object(self, event: Event) -> dict[str, Any]:
        return {**self._events.shown(event), "accepted_at": event.received_us / 1_000_000}

    async def reset(self, _: web.Request) -> web.Response:
        """Delete everything, faults and journal included."""
        self._sandbox.reset()
        self._faults.clear()
        return json_answer({"status": "ok"})

    async def arm(self, request: web.Request) -> web.Response:
        """Add rules: `{"rules": [...], "seed": 1}`, or only the list; a 422 names the errors."""
        body = await request.read()
        try:
            order = _order.decode(b'{"rules":%b}' % body if body.lstrip().startswith(b"[") else body)
        except UNDECODABLE as error:
            return json_answer({"status": 422, "error": str(error)}, 422)
        self._faults.arm(order)
        return json_answer({"rules": self._faults.shown()})

    async def faults(self, _: web.Request) -> web.Response:
        """Return every rule, and how often it has fired."""
        return json_answer({"rules": self._faults.shown()})

    async def disarm(self, _: web.Request) -> web.Response:
        """Remove every rule."""
        self._faults.clear()
        return json_answer({"rules": []})
