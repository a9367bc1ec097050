"""Where a neighbour that did not answer was looked for, and by which setting: the end of a sentence. Never a password."""

from collections.abc import Callable
from urllib.parse import urlsplit

from connectors.settings import Settings
from schemas.errors import ConfigurationError


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
    return f"DATABASE_URL or POSTGRES_HOST: {bare_place(settings.postgres_url.get_secret_value())}"


def bare_place(url: str) -> str:
    """Hosts and ports of a Postgres URL, without the user and the password."""
    return urlsplit(url).netloc.rpartition("@")[2] or "localhost"


def _bare(url: str) -> str:
    place = urlsplit(url)
    host = place.netloc.rpartition("@")[2]
    return place._replace(netloc=host, query="", fragment="").geturl()
