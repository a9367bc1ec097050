"""Stripe's API as far as a purchase needs it, on a loopback port: customers and Checkout sessions, once for each idempotency key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.support.usage_api import serving


@asynccontextmanager
async def stripe_server() -> AsyncIterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Yield the server's address, and the Checkout sessions by id."""
    sessions: dict[str, dict[str, Any]] = {}
    created: dict[str, dict[str, Any]] = {}

    async def customer(request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        return web.json_response(created.setdefault(key, {"id": f"cus_{len(created)}", "object": "customer"}))

    async def session(request: web.Request) -> web.Response:
        key, form = request.headers["Idempotency-Key"], await request.post()
        if key not in created:
            result = {
                "id": f"cs_test_{len(sessions)}",
                "object": "checkout.session",
                "livemode": False,
                "url": f"https://checkout.stripe.com/c/pay/{len(sessions)}",
                "client_reference_id": form["client_reference_id"],
                "amount_total": int(str(form["line_items[0][price_data][unit_amount]"])),
            }
            created[key] = sessions[str(result["id"])] = result
        return web.json_response(created[key])

    async def existing(request: web.Request) -> web.Response:
        return web.json_response(sessions[request.match_info["id"]])

    app = web.Application()
    app.router.add_post("/v1/customers", customer)
    app.router.add_post("/v1/checkout/sessions", session)
    app.router.add_get("/v1/checkout/sessions/{id}", existing)
    async with serving(app) as url:
        yield url, sessions
