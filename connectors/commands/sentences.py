"""An error of a neighbour, with the address that was tried and the setting that names it."""

from typing import Final

from connectors.lago.errors import LagoIntegrationError
from connectors.settings import Settings, load_settings
from schemas.errors import ConfigurationError, MeterbridgeError

#: Nobody answers, or nobody in time.
_AWAY: Final = frozenset({"connect", "timeout", "no_answer"})
_KAFKA: Final = frozenset({"kafka_unavailable", "kafka_timeout"})
_POSTGRES: Final = frozenset({"postgres_away", "postgres_slow", "postgres_denied"})
_KEY_REFUSED: Final = frozenset({401, 403})


def sentence_of(error: MeterbridgeError) -> str:
    """What a command ends with; it holds no secret."""
    try:
        hint = _hint(error, load_settings())
    except ConfigurationError:
        hint = ""
    return f"{error}: {hint}" if hint else str(error)


def _hint(error: MeterbridgeError, settings: Settings) -> str:
    if isinstance(error, LagoIntegrationError):
        if error.status in _KEY_REFUSED:
            return f"Lago at {settings.lago_api_url} refuses LAGO_API_KEY"
        return f"Lago at {settings.lago_api_url} does not answer (LAGO_API_URL)" if error.reason in _AWAY else ""
    if error.reason in _KAFKA:
        return f"is Kafka at {settings.kafka_bootstrap_servers}? (KAFKA_BOOTSTRAP_SERVERS)"
    if error.reason in _POSTGRES and settings.postgres_url is not None:
        place = settings.postgres_url.get_secret_value().partition("://")[2].rpartition("@")[2]
        return f"is Postgres at {place.partition('?')[0]}? (DATABASE_URL or POSTGRES_HOST)"
    if error.reason == "litellm_db" and settings.litellm_database_url is not None:
        place = settings.litellm_database_url.get_secret_value().partition("://")[2].rpartition("@")[2]
        return f"is LiteLLM's Postgres at {place.partition('?')[0]}? (LITELLM_DATABASE_URL)"
    return ""
