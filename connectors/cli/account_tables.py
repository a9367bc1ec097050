"""Lago, and the tables of customers and orgs, in a command's own process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors.billing.metered_events import InMemoryUsage
from connectors.cli.sentences import fail
from connectors.config.connections import kafka_connection, revealed, topic_layout
from connectors.config.settings import Settings
from connectors.kafka.admin import check_topics
from connectors.lago.client import LagoClient, lago_http
from connectors.processes.account_tables import AccountTables
from schemas.errors import TopicProblem


def lago_key(settings: Settings) -> str:
    """LAGO_API_KEY; without one the command ends with exit code 2."""
    if settings.lago_api_key is None:
        fail("LAGO_API_KEY is not set: Lago cannot be asked.", 2)
    return revealed(settings.lago_api_key)


@asynccontextmanager
async def lago_client(settings: Settings, connections: int = 1) -> AsyncIterator[LagoClient]:
    """A client of Lago with at most `connections` connections."""
    key = lago_key(settings)
    async with lago_http(settings.lago_timeout, connections) as http:
        yield LagoClient(http, settings.lago_api_url, key)


@asynccontextmanager
async def own_account_tables(settings: Settings, connections: int) -> AsyncIterator[AccountTables]:
    """The tables, read to their ends on entry.

    Args:
        connections: to Lago, at most.

    Raises:
        TopicProblem: `topics`: topics are missing or wrong.
        Unavailable: Kafka does not answer.
    """
    if complaints := await asyncio.to_thread(check_topics, kafka_connection(settings), topic_layout(settings)):
        raise TopicProblem("topics", " ".join(complaints))
    async with lago_http(settings.lago_timeout, connections) as http:
        lago = LagoClient(http, settings.lago_api_url, revealed(settings.lago_api_key))
        tables = AccountTables(settings, lago, lambda _discovery: InMemoryUsage())  # nothing is recorded by a command
        async with tables.open():
            await tables.mappings.ready()
            yield tables
