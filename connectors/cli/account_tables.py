"""Gives a command Lago and the tables of customers and orgs, in its own process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from connectors.billing.metered_events import InMemoryUsage
from connectors.cli.sentences import fail
from connectors.config.connections import kafka_connection, revealed, topic_layout
from connectors.config.settings import Settings
from connectors.kafka.admin import check_topics
from connectors.kafka.errors import in_one
from connectors.lago.client import LagoClient
from connectors.processes.account_tables import AccountTables
from connectors.processes.lagos import open_lagos
from schemas.errors import TopicProblem
from schemas.organizations import DEFAULT


def lago_key(settings: Settings) -> str:
    """Return LAGO_API_KEY; if it is not set, end the command with exit code 2."""
    if settings.lago_api_key is None:
        fail("LAGO_API_KEY is not set: Lago cannot be asked.", 2)
    return revealed(settings.lago_api_key)


@asynccontextmanager
async def lago_client(settings: Settings, organization: str = DEFAULT) -> AsyncIterator[LagoClient]:
    """Yield a client of a Lago organisation with one connection. If the organisation is not configured, end the command
    with exit code 2.
    """
    if organization == DEFAULT:
        lago_key(settings)
    async with AsyncExitStack() as stack:
        lagos = await open_lagos(stack, settings, 1)
        if organization not in lagos:
            fail(f"--organization: {organization!r} is not in LAGO_ORGANIZATIONS. Give one of its ids.", 2)
        yield lagos[organization]


@asynccontextmanager
async def own_account_tables(settings: Settings, connections: int) -> AsyncIterator[AccountTables]:
    """Yield the tables, read to their ends on entry.

    Args:
        connections: to Lago, at most.

    Raises:
        TopicProblem: `topics`: topics are missing or wrong.
        Unavailable: Kafka does not answer.
    """
    if complaints := await asyncio.to_thread(check_topics, kafka_connection(settings), topic_layout(settings)):
        raise TopicProblem("topics", in_one(complaints))
    async with AsyncExitStack() as stack:
        lagos = await open_lagos(stack, settings, connections)
        # a command records nothing
        tables = AccountTables(settings, lagos.pop(DEFAULT), lambda _discovery: InMemoryUsage(), lagos)
        async with tables.open():
            await tables.mappings.ready()
            yield tables
