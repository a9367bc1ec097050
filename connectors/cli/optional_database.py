"""The database of a command that works with or without Postgres."""

from contextlib import AbstractContextManager, nullcontext

from connectors.config.connections import postgres_url
from connectors.config.settings import Settings
from connectors.postgres.pool import Database


def optional_database(settings: Settings) -> AbstractContextManager[Database | None]:
    """Return a context of a pool of one connection, or of None if the deployment has no Postgres.

    Raises:
        ConfigurationError: the setting is not a URL.
    """
    return nullcontext() if settings.postgres_url is None else Database(postgres_url(settings), size=1)
