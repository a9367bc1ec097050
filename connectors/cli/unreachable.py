"""Adds the address and its setting to an error about Kafka, Postgres or Lago that does not answer."""

from collections.abc import Callable
from typing import Final

from connectors.config.addresses import bare_place, kafka_away, lago_address, postgres_address
from connectors.config.connections import revealed
from connectors.config.settings import Settings
from connectors.lago.errors import LagoIntegrationError, LagoUnavailable
from schemas.errors import ConfigurationError, MeterbridgeError, Unavailable

_KAFKA: Final = ("kafka_unavailable", "kafka_timeout")
_LITELLM: Final = "litellm_db"
_POSTGRES: Final = ("postgres_away", "postgres_slow", "postgres_denied")
#: Reasons of LagoUnavailable if Lago did not answer, and reasons of a refused key.
_LAGO: Final = ("connect", "timeout", "no_answer")
#: Beginnings of sentences that say everything, so that the error itself is not repeated.
_WHOLE: Final = ("Postgres does not answer", "Lago does not answer")
#: What the errors of a connection are called where people read them.
_CAUSES: Final = {
    "ConnectionRefusedError": "connection refused",
    "ConnectionResetError": "connection closed",
    "TimeoutError": "no answer in time",
    "gaierror": "unknown host name",
}
_REFUSED: Final = ("http_401", "http_403")
#: Answers that a server which is not Lago gives.
_NOT_LAGOS: Final = ("http_404", "http_405", "not_lago", "bad_answer")


def with_address(error: MeterbridgeError, settings: Callable[[], Settings]) -> str:
    """Return the error as a sentence. If a service cannot be reached, the sentence also names its address."""
    if error.reason in _KAFKA:
        return kafka_away(error.detail, lambda: settings().kafka_bootstrap_servers) or str(error)
    try:
        sentence = _sentence(error, settings())
    except ConfigurationError:
        sentence = ""
    if sentence.startswith(_WHOLE):
        return sentence
    return f"{error}; {sentence}" if sentence else str(error)


def _sentence(error: MeterbridgeError, settings: Settings) -> str:
    if error.reason in _POSTGRES and settings.postgres_url is not None:
        place = postgres_address(revealed(settings.postgres_url))
        cause = _CAUSES.get(error.detail)
        if cause:
            return f"Postgres does not answer at {place} ({cause}): is it running?"
        if error.reason == "postgres_denied":
            return f"Postgres at {place} refuses the account: correct its name, its password or its rights"
        return f"asked at {place}"
    if error.reason == _LITELLM and settings.litellm_database_url is not None:
        return f"asked at LITELLM_DATABASE_URL: {bare_place(revealed(settings.litellm_database_url))}"
    if _is_lagos(error) and error.reason in _LAGO:
        late = " in time" if error.reason == "timeout" else ""
        return f"Lago does not answer{late} at {lago_address(settings.lago_api_url)}: is it running?"
    if _is_lagos(error) and error.reason in _REFUSED:
        return f"Lago at {lago_address(settings.lago_api_url)} refuses LAGO_API_KEY"
    if isinstance(error, LagoUnavailable) and error.reason in _NOT_LAGOS:
        return f"asked at {lago_address(settings.lago_api_url)}: is this Lago's address?"
    return ""


def _is_lagos(error: MeterbridgeError) -> bool:
    return isinstance(error, LagoIntegrationError) or (isinstance(error, Unavailable) and error.reason == "connect")
