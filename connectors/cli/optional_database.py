"""The database of a command: for one question, or for a command that works with or without Postgres."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from connectors.config.connections import postgres_url
from connectors.config.settings import Settings
from connectors.postgres.pool import Database

T = TypeVar("T")


def optional_database(settings: Settings) -> AbstractContextManager[Database | None]:
    """Return a context of a pool of one connection, or of None if the deployment has no Postgres.

    Raises:
        ConfigurationError: the setting is not a URL.
    """
    return nullcontext() if settings.postgres_url is None else Database(postgres_url(settings), size=1)


def ask_database(settings: Settings, question: Callable[[Database], Awaitable[T]]) -> T:
    """Return what `question` finds with one connection to Postgres.

    Raises:
        ConfigurationError: the deployment has no Postgres, or the setting is not a URL.
        Unavailable, Rejected: see `connectors.postgres.errors.decisions`.
    """

    async def answer() -> T:
        with Database(postgres_url(settings), size=1) as database:
            return await question(database)

    return asyncio.run(answer())
