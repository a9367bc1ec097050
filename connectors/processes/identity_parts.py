"""Composes the mapping of unknown customers by identity, which runs beside the meter if it is switched on."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from connectors.billing.identity_mapping import IdentityMapper, IdentityMappings
from connectors.billing.metered_events import InMemoryUsage
from connectors.config.connections import revealed
from connectors.config.settings import Settings
from connectors.lago.client import LagoClient, lago_http
from connectors.processes.account_tables import AccountTables
from connectors.processes.worker_parts import SPARE_CONNECTIONS
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_sensors import WorkerSensors


async def map_by_identity(
    stack: AsyncExitStack, settings: Settings, metrics: Metrics, sensors: WorkerSensors
) -> Callable[[], Awaitable[object]]:
    """Return the task of `MAP_BY_IDENTITY`, which maps unknown customers. It runs beside the meter with its own tables,
    until the stack is closed.
    """
    http = await stack.enter_async_context(lago_http(settings.lago_timeout, 1 + SPARE_CONNECTIONS))
    others = [
        one.id for one in settings.lago_organizations
    ]  # the keys of their orgs name no customer of the default organisation
    key = revealed(settings.lago_api_key)
    lago = LagoClient(http, settings.lago_api_url, key, metrics.lago_requested, others=others)
    account_tables = AccountTables(settings, lago, lambda _discovery: InMemoryUsage())
    mapper = IdentityMapper(
        sensors.unmapped,
        lago.customer,
        IdentityMappings(account_tables.mappings),
        lambda outcome: metrics.identities_asked.labels(outcome).inc(),
        time.monotonic,
    )
    await stack.enter_async_context(account_tables.open())
    return mapper.work
