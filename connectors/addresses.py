"""Where a neighbour that did not answer was looked for, and by which setting: the end of a sentence. Never a password."""

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from connectors.settings import Settings
from schemas.errors import ConfigurationError, MeterbridgeError, Unavailable

_KAFKA: Final = ("kafka_unavailable", "kafka_timeout")
_LITELLM: Final = "litellm_db"
_POSTGRES: Final = ("postgres_away", "postgres_slow", "postgres_denied")
#: What LagoUnavailable says where no answer came, or the key was refused.
_LAGO: Final = ("connect", "timeout", "no_answer")
_REFUSED: Final = ("http_401", "http_403")


def with_address(error: MeterbridgeError, settings: Callable[[], Settings]) -> str:
    """The error in words, and what to change where it is about a neighbour that cannot be reached."""
    if error.reason in _KAFKA:
        return kafka_away(error.detail, settings) or str(error)
    try:
        told = _told(error, settings())
    except ConfigurationError:
        told = ""
    return f"{error}; {told}" if told else str(error)


def kafka_away(detail: str, settings: Callable[[], Settings]) -> str:
    """That Kafka does not answer, where it was looked for, and what its library said; `""` if the settings are wrong."""
    try:
        sentence = f"Kafka does not answer at {kafka_address(settings())}"
    except ConfigurationError:
        return ""
    return f"{sentence} ({detail})" if detail else sentence


def kafka_address(settings: Settings) -> str:
    """`KAFKA_BOOTSTRAP_SERVERS=...`."""
    return f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers}"


def lago_address(settings: Settings) -> str:
    """`LAGO_API_URL=...`, without a user and its password."""
    return f"LAGO_API_URL={_bare(settings.lago_api_url)}"


def postgres_address(settings: Settings) -> str:
    """`DATABASE_URL` and the host and port in it; `""` where there is none."""
    if settings.postgres_url is None:
        return ""
    return f"DATABASE_URL or POSTGRES_HOST: {_place_of(settings.postgres_url.get_secret_value())}"


def _told(error: MeterbridgeError, settings: Settings) -> str:
    if error.reason in _POSTGRES and settings.postgres_url is not None:
        return f"asked at {postgres_address(settings)}"
    if error.reason == _LITELLM and settings.litellm_database_url is not None:
        return f"asked at LITELLM_DATABASE_URL: {_place_of(settings.litellm_database_url.get_secret_value())}"
    if _is_lagos(error) and error.reason in _LAGO:
        return f"asked at {lago_address(settings)}"
    if _is_lagos(error) and error.reason in _REFUSED:
        return f"Lago at {lago_address(settings)} refuses LAGO_API_KEY"
    return ""


def _is_lagos(error: MeterbridgeError) -> bool:
    from connectors.lago.errors import LagoIntegrationError

    return isinstance(error, LagoIntegrationError) or (isinstance(error, Unavailable) and error.reason == "connect")


def _place_of(url: str) -> str:
    """Hosts and ports of a Postgres URL, without the user and the password."""
    return urlsplit(url).netloc.rpartition("@")[2] or "localhost"


def _bare(url: str) -> str:
    place = urlsplit(url)
    host = place.netloc.rpartition("@")[2]
    return place._replace(netloc=host, query="", fragment="").geturl()
