"""Adds the address and its setting to an error about Kafka, Postgres or Lago that does not answer."""

from collections.abc import Callable
from typing import Final

from connectors.config.addresses import bare_place, kafka_address, lago_address, postgres_address, postgres_database
from connectors.config.connections import revealed
from connectors.config.settings import Settings
from connectors.config.unanswered import unanswered
from connectors.lago.errors import LagoIntegrationError, LagoUnavailable
from schemas.errors import ConfigurationError, MeterbridgeError, Unavailable
from schemas.reasons import POSTGRES_SCHEMA

_KAFKA: Final = ("kafka_unavailable", "kafka_timeout")
_LITELLM: Final = "litellm_db"
_POSTGRES: Final = ("postgres_away", "postgres_slow", "postgres_denied")
#: Reasons of LagoUnavailable if Lago did not answer, and reasons of a refused key.
_LAGO: Final = ("connect", "timeout", "no_answer")
_REFUSED: Final = ("http_401", "http_403")
#: Answers that a server which is not Lago gives.
_NOT_LAGOS: Final = ("http_404", "http_405", "not_lago", "bad_answer")


def with_address(error: MeterbridgeError, settings: Callable[[], Settings]) -> str:
    """Return the error as a sentence. If a service cannot be reached, the sentence also names its address."""
    try:
        return _sentence(error, settings()) or str(error)
    except ConfigurationError:
        return str(error)


def _sentence(error: MeterbridgeError, settings: Settings) -> str:
    if _is_lagos(error) and error.reason in _REFUSED:
        return f"{error}; Lago at {lago_address(settings.lago_api_url)} refuses LAGO_API_KEY"
    if isinstance(error, LagoUnavailable) and error.reason in _NOT_LAGOS:
        return f"{error}; asked at {lago_address(settings.lago_api_url)}: is this Lago's address?"
    if error.reason == POSTGRES_SCHEMA and settings.postgres_url is not None:
        return f"{error}; asked {postgres_database(revealed(settings.postgres_url))}"
    place = _place(error, settings)
    if not place:
        return ""
    if error.reason == "postgres_denied":
        return f"{error}; Postgres at {place} refuses the account: correct its name, its password or its rights"
    return unanswered(error.reason, error.detail, place) or f"{error}; asked at {place}"


def _place(error: MeterbridgeError, settings: Settings) -> str:
    """Return the address of the service that the error is about, with its setting; `""` = it is about none."""
    if error.reason in _KAFKA:
        return kafka_address(settings.kafka_bootstrap_servers)
    if error.reason in _POSTGRES and settings.postgres_url is not None:
        return postgres_address(revealed(settings.postgres_url))
    if error.reason == _LITELLM and settings.litellm_database_url is not None:
        return f"LITELLM_DATABASE_URL: {bare_place(revealed(settings.litellm_database_url))}"
    return lago_address(settings.lago_api_url) if _is_lagos(error) and error.reason in _LAGO else ""


def _is_lagos(error: MeterbridgeError) -> bool:
    return isinstance(error, LagoIntegrationError) or (isinstance(error, Unavailable) and error.reason == "connect")
