"""Returns the address of a dependency and its setting for error messages, never with a password."""

from urllib.parse import urlsplit


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
