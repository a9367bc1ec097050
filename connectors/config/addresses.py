"""Returns the address of a dependency and its setting for error messages, never with a password."""

from typing import Final
from urllib.parse import unquote, urlsplit

from connectors.config.kafka_settings import KafkaSettings
from connectors.config.lago_settings import LagoSettings

_DEFAULTS: Final = (
    KafkaSettings.model_fields["kafka_bootstrap_servers"].default,
    LagoSettings.model_fields["lago_api_url"].default,
)


def kafka_address(servers: str) -> str:
    """Return the setting `KAFKA_BOOTSTRAP_SERVERS` with its value, and whether that is the default: it may be unset."""
    return _setting("KAFKA_BOOTSTRAP_SERVERS", servers)


def lago_address(url: str) -> str:
    """Return the setting `LAGO_API_URL` with its value, without user and password, and whether that is the default."""
    return _setting("LAGO_API_URL", bare_url(url))


def _setting(name: str, value: str) -> str:
    return f"{'the default ' if value in _DEFAULTS else ''}{name}={value}"


def postgres_address(url: str) -> str:
    """Return the settings of Postgres with host and port."""
    return f"DATABASE_URL or POSTGRES_HOST: {bare_place(url)}"


def postgres_database(url: str) -> str:
    """Return the settings of Postgres with host, port and the database's name."""
    name = unquote(urlsplit(url).path.removeprefix("/"))
    return f"the database {name!r} of DATABASE_URL or POSTGRES_DB, at {bare_place(url)}"


def bare_place(url: str) -> str:
    """Return the hosts and ports of a Postgres URL, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2] or "localhost"


def bare_url(url: str) -> str:
    """Return the URL without user, password, query and fragment, which may be secret."""
    place = urlsplit(url)
    host = place.netloc.rpartition("@")[2]
    return place._replace(netloc=host, query="", fragment="").geturl()
