"""Returns the address of a dependency and its setting for error messages, never with a password."""

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError

#: A listener that speaks another protocol looks like one that is away.
KAFKA_RUNS: Final = "is it running, and is KAFKA_SECURITY_PROTOCOL the one of this port?"


def kafka_away(detail: str, servers: Callable[[], str]) -> str:
    """Return a sentence which says that Kafka does not answer, with its address and the library's message; `""` if the
    settings are wrong.

    Args:
        detail: the library's message; `""` = none.
        servers: returns `KAFKA_BOOTSTRAP_SERVERS`, or raises ConfigurationError.
    """
    try:
        sentence = f"Kafka does not answer at {kafka_address(servers())}"
    except ConfigurationError:
        return ""
    return f"{sentence} ({detail}): {KAFKA_RUNS}" if detail else f"{sentence}: {KAFKA_RUNS}"


def kafka_address(servers: str) -> str:
    """Return the setting `KAFKA_BOOTSTRAP_SERVERS` with its value."""
    return f"KAFKA_BOOTSTRAP_SERVERS={servers}"


def lago_address(url: str) -> str:
    """Return the setting `LAGO_API_URL` with its value, without user and password."""
    return f"LAGO_API_URL={bare_url(url)}"


def postgres_address(url: str) -> str:
    """Return the settings of Postgres with host and port."""
    return f"DATABASE_URL or POSTGRES_HOST: {bare_place(url)}"


def bare_place(url: str) -> str:
    """Return the hosts and ports of a Postgres URL, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2] or "localhost"


def bare_url(url: str) -> str:
    """Return the URL without user, password, query and fragment, which may be secret."""
    place = urlsplit(url)
    host = place.netloc.rpartition("@")[2]
    return place._replace(netloc=host, query="", fragment="").geturl()
