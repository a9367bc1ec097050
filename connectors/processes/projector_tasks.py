"""Composes the parts of the projector: its rows in Postgres, and the tasks that run beside it.

This module is separate from the modules of every role, so that no other worker has it in memory. `closing` closes
connections when the role ends, because its process may continue.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

from connectors.config.connections import all_revealed, deployment_of, lago_connections, postgres_url
from connectors.config.http_client import HttpClient
from connectors.config.settings import Settings
from connectors.lago.client import LagoClient, lago_http
from connectors.operations.automatic_rebilling import LearntEnds
from connectors.operations.credit_upkeep import CreditUpkeep
from connectors.operations.late_calls import LateCalls
from connectors.operations.outgoing_webhooks.announcements import Announcements
from connectors.operations.outgoing_webhooks.delivery import ANSWER_S, MessageSender
from connectors.operations.outgoing_webhooks.endpoints import WebhookTarget
from connectors.operations.outgoing_webhooks.task import OutgoingWebhooks
from connectors.operations.provider_health import ProviderHealth
from connectors.operations.sender import CommandProducer
from connectors.operations.usage_summary import SummaryRefresh
from connectors.postgres.pool import Database
from connectors.postgres.projection import PostgresProjection
from schemas.topics import TopicNames


def projection(settings: Settings, closing: AsyncExitStack) -> PostgresProjection:
    """Return the tables that the projector fills. Raises: ConfigurationError: there is no Postgres."""
    topics = TopicNames.with_prefix(settings.topic_prefix)
    return PostgresProjection(_database(settings, closing, size=4), topics, settings.credits_user_kinds)


def _database(settings: Settings, closing: AsyncExitStack, size: int = 1) -> Database:
    return closing.enter_context(Database(postgres_url(settings), size=size))


def works_of(
    settings: Settings, partition_tasks: Mapping[Any, Any], sensors: Any, closing: AsyncExitStack
) -> Iterator[tuple[str, Callable[[], Awaitable[object]]]]:
    """Yield the tasks that run beside a projector with these partition tasks until they are cancelled: names, and
    functions that start them.
    """
    yield "late_calls", late_calls_of(settings, partition_tasks, sensors, closing).watch
    yield "learnt_ends", learnt_ends_of(settings, partition_tasks, sensors, closing).watch
    yield "credit_upkeep", credit_upkeep_of(settings, sensors, closing).watch
    yield "summary_refresh", summary_refresh_of(settings, sensors, closing).watch
    yield "provider_health", provider_health_of(settings, sensors, closing).watch
    if settings.outgoing_webhook_urls:
        yield "outgoing_webhooks", outgoing_webhooks_of(settings, sensors, closing).watch


def late_calls_of(
    settings: Settings, partition_tasks: Mapping[Any, Any], sensors: Any, closing: AsyncExitStack
) -> LateCalls:
    """Return the task that releases late calls, beside a projector with these partition tasks."""
    deployment, database = deployment_of(settings), _database(settings, closing, size=2)
    return LateCalls(
        deployment, database, partition_tasks, sensors, make_sender=lambda: CommandProducer(deployment.kafka)
    )


def learnt_ends_of(
    settings: Settings, partition_tasks: Mapping[Any, Any], sensors: Any, closing: AsyncExitStack
) -> LearntEnds:
    """Make the task that bills events again that were posted after a subscription's end, for a projector with these
    partitions.
    """
    lagos = {}
    for one in lago_connections(settings):
        if not one.is_default or settings.lago_api_key is not None:
            http, requested = lago_http(one.timeout_s, 1), sensors.requested_of(one.organization)
            closing.push_async_callback(http.aclose)
            lagos[one.organization] = LagoClient(http, one.url, one.key, requested, organization=one.organization)
    deployment, database = deployment_of(settings), _database(settings, closing)
    return LearntEnds(
        deployment, database, partition_tasks, sensors, lagos, make_sender=lambda: CommandProducer(deployment.kafka)
    )


def credit_upkeep_of(settings: Settings, sensors: Any, closing: AsyncExitStack) -> CreditUpkeep:
    """Make the task that ends expired reservations and credits, beside a projector."""
    return CreditUpkeep(_database(settings, closing), sensors)


def summary_refresh_of(settings: Settings, sensors: Any, closing: AsyncExitStack) -> SummaryRefresh:
    """Return the task that keeps the sums of analytics up to date, beside a projector."""
    return SummaryRefresh(
        _database(settings, closing), failed=sensors.projection_failed, show=sensors.usage_days_failed
    )


def provider_health_of(settings: Settings, sensors: Any, closing: AsyncExitStack) -> ProviderHealth:
    """Return the task that judges how well the providers answer, beside a projector."""
    return ProviderHealth(
        _database(settings, closing),
        show=sensors.providers,
        failed=sensors.projection_failed,
    )


def outgoing_webhooks_of(settings: Settings, sensors: Any, closing: AsyncExitStack) -> OutgoingWebhooks:
    """Return the task that sends outgoing webhooks, beside a projector."""
    http = HttpClient(ANSWER_S)
    closing.push_async_callback(http.aclose)
    sender = MessageSender(http, all_revealed(settings.outgoing_webhook_secrets), sensors.webhook_attempted)
    endpoints = [WebhookTarget(url) for url in all_revealed(settings.outgoing_webhook_urls)]
    announcements = Announcements(
        [endpoint.name for endpoint in endpoints],
        settings.outgoing_webhook_events,
        settings.outgoing_webhook_held_usd,
        settings.outgoing_webhook_low_balance_usd,
    )
    return OutgoingWebhooks(_database(settings, closing), announcements, sender, endpoints, sensors)
