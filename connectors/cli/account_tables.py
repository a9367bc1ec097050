"""The account books in a command's own process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors.billing.metered_events import InMemoryUsage
from connectors.config.connections import kafka_connection, revealed, topic_layout
from connectors.config.settings import Settings
from connectors.kafka.admin import check_topics
from connectors.lago.client import LagoClient, lago_http
from connectors.processes.account_tables import AccountTables
from schemas.errors import TopicProblem


@asynccontextmanager
async def own_books(settings: Settings, connections: int) -> AsyncIterator[AccountTables]:
    """Read to their ends on entry; `connections`: to Lago.

    Raises:
        TopicProblem: `topics`: they are missing or wrong.
        Unavailable: Kafka does not answer.
    """
    if complaints := await asyncio.to_thread(check_topics, kafka_connection(settings), topic_layout(settings)):
        raise TopicProblem("topics", " ".join(complaints))
    async with lago_http(settings.lago_timeout, connections) as http:
        lago = LagoClient(http, settings.lago_api_url, revealed(settings.lago_api_key))
        books = AccountTables(settings, lago, lambda _learner: InMemoryUsage())  # nothing is recorded by a command
        async with books.open():
            await books.mappings.ready()
            yield books
