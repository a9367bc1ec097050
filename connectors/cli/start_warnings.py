"""A warning at the start of `worker` about the setting without which it runs and bills nothing."""

from collections.abc import Collection

import structlog

from connectors.config.settings import Settings

_log = structlog.get_logger(__name__)

_NO_LAGO_KEY = "LAGO_API_KEY is not set: Lago will refuse all events; they wait in Kafka for 30 days"


def warn_of_missing(settings: Settings, roles: Collection[str]) -> None:
    """Log a warning if a role posts to Lago and there is no key.

    Args:
        roles: the roles that this process runs.
    """
    if settings.lago_api_key is None and {"sink", "retry"}.intersection(roles):
        _log.warning("lago_key_not_set", detail=_NO_LAGO_KEY)
