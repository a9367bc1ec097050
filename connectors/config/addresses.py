"""Where a neighbour that did not answer was looked for, and by which setting: the end of a sentence. Never a password."""

from collections.abc import Callable
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError


def kafka_away(detail: str, servers: Callable[[], str]) -> str:
    """That Kafka does not answer, where it was looked for, and what its library said; `""` if the settings are wrong.

    Args:
        servers: gives `KAFKA_BOOTSTRAP_SERVERS`, or raises ConfigurationError.
    """
    try:
        sentence = f"Kafka does not answer at {kafka_address(servers())}"
    except ConfigurationError:
        return ""
    return f"{sentence} ({detail})" if detail else sentence


def kafka_address(servers: str) -> str:
    """`KAFKA_BOOTSTRAP_SERVERS=...`."""
    return f"KAFKA_BOOTSTRAP_SERVERS={servers}"


def lago_address(url: str) -> str:
    """`LAGO_API_URL=...`, without a user and its password."""
    return f"LAGO_API_URL={_bare(url)}"


def postgres_address(url: str) -> str:
    """`DATABASE_URL` and the host and port in it."""
    return f"DATABASE_URL or POSTGRES_HOST: {bare_place(url)}"


def bare_place(url: str) -> str:
    """Hosts and ports of a Postgres URL, without the user and the password."""
    return urlsplit(url).netloc.rpartition("@")[2] or "localhost"


def _bare(url: str) -> str:
    place = urlsplit(url)
    host = place.netloc.rpartition("@")[2]
    return place._replace(netloc=host, query="", fragment="").geturl()
