"""Combines state, faults and routes of the sandbox in one aiohttp application."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from connectors.lago_sandbox.admin_routes import AdminRoutes
from connectors.lago_sandbox.answers import refused
from connectors.lago_sandbox.customer_routes import CustomerRoutes
from connectors.lago_sandbox.event_routes import EventRoutes
from connectors.lago_sandbox.faults import Faults
from connectors.lago_sandbox.injection import Injection
from connectors.lago_sandbox.invoice_routes import InvoiceRoutes
from connectors.lago_sandbox.limits import SandboxLimits, limiting
from connectors.lago_sandbox.management_routes import VERSION, ManagementRoutes
from connectors.lago_sandbox.refusals import SandboxRefusal, not_found, unauthorized
from connectors.lago_sandbox.state import Sandbox
from connectors.lago_sandbox.store import StoreKind
from connectors.lago_sandbox.webhooks import WAITS_S, SandboxWebhooks
from streams.core.delivery.verdicts import batches_are_whole

MAX_BODY_BYTES = 64 * 1024 * 1024
#: The default HMAC key of the organization.
WEBHOOK_SECRET = "sandbox-webhook-secret"  # noqa: S105  # of a stand-in

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_sandbox(
    *,
    api_key: str | None = None,
    store: StoreKind = "postgres",
    dedup: bool = False,
    delay_s: float = 0,
    clock: Callable[[], float] = time.time,
    journal: Path | None = None,
    rate_limit: int | None = None,
    version: str = VERSION,
    webhook_secret: str = WEBHOOK_SECRET,
    webhook_waits_s: Sequence[float] = WAITS_S,
    premium: bool = False,
    invoice_delay_s: float = 0,
) -> web.Application:
    """Yield an application that answers as Lago does.

    Args:
        api_key: the only bearer token that is accepted; None = any token that is not empty.
        store: the organization's event store.
        dedup: whether ClickHouse deduplicates at query time; Postgres always does.
        delay_s: every answer below `/api` is delayed by this, seconds.
        clock: seconds since 1970 UTC.
        journal: a file that keeps accepted changes across restarts; None = memory only.
        rate_limit: requests a second to the events endpoints, as in Lago Cloud; None = no limit.
        version: shown by `/health`; before v1.39.0 a batch refused for a duplicate stores its other events.
        webhook_secret: the key that signs the webhooks.
        webhook_waits_s: waits before their further attempts, seconds.
        premium: invoice previews are licensed; other licensed features are still refused.
        invoice_delay_s: how long after the end of a subscription its last invoice is counted and shown, seconds.

    Raises:
        ValueError: `dedup` without the clickhouse store.
    """
    if dedup and store != "clickhouse":
        raise ValueError("dedup is a setting of the clickhouse store; postgres always deduplicates")
    sandbox = Sandbox(store=store, dedup=dedup, clock=clock, journal=journal, invoice_delay_s=invoice_delay_s)
    faults, injection = Faults(clock), Injection()
    limits = SandboxLimits(rate_limit) if rate_limit else None
    webhooks = SandboxWebhooks(sandbox, webhook_secret, webhook_waits_s)
    answering, looking = _answering(injection, delay_s), webhooks.looking()
    middlewares = [answering, _authenticating(api_key), _failing(faults, injection), looking]
    if limits is not None:
        middlewares.insert(0, limiting(limits, clock))
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=middlewares)
    events = EventRoutes(sandbox, faults, injection, whole_batches=batches_are_whole(version))
    app.add_routes(events.routes())
    for below in (ManagementRoutes(sandbox, version), CustomerRoutes(sandbox), InvoiceRoutes(sandbox, premium=premium)):
        app.add_routes(below.routes())
    app.add_routes([*AdminRoutes(sandbox, faults, events, limits).routes(), *webhooks.routes()])

    async def telling(_: web.Application) -> AsyncIterator[None]:
        watching = asyncio.ensure_future(webhooks.watch())
        yield
        watching.cancel()
        await webhooks.close()

    async def close(_: web.Application) -> None:
        sandbox.close()

    app.cleanup_ctx.append(telling)
    app.on_shutdown.append(injection.close)
    app.on_cleanup.append(close)
    return app


def _answering(injection: Injection, delay_s: float) -> Middleware:
    """Turns refusals into Lago's error bodies; an unknown path or verb is 404 `resource_not_found`."""

    @web.middleware
    async def answering(request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except SandboxRefusal as refusal:
            response = refused(refusal)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
            response = refused(not_found("resource"))
        if delay_s and request.path.startswith("/api/"):
            await injection.wait(delay_s)
        return response

    return answering


def _authenticating(api_key: str | None) -> Middleware:
    """Checks the token, which is the second word of `Authorization`; the scheme does not matter, as in Lago."""

    @web.middleware
    async def authenticating(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path.startswith("/api/v1/") and request.match_info.http_exception is None:
            words = request.headers.get("Authorization", "").split()
            token = words[1] if len(words) > 1 else ""
            if not token or (api_key is not None and not hmac.compare_digest(token.encode(), api_key.encode())):
                raise unauthorized()
        return await handler(request)

    return authenticating


def _failing(faults: Faults, injection: Injection) -> Middleware:
    """Applies faults to every request. For posted events this is done after the events were read."""

    @web.middleware
    async def failing(request: web.Request, handler: _Handler) -> web.StreamResponse:
        posted_events = request.method == "POST" and request.path.startswith("/api/v1/events")
        if posted_events or request.path.startswith("/__"):
            return await handler(request)
        rule = faults.draw(request.method, request.path)
        return await injection.run(request, rule, lambda: handler(request))

    return failing
