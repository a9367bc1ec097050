"""The product's HTTP client, for tests: they run on uvloop, and kill servers while connections are opened."""

from typing import Any

from connectors.config.http_client import HttpClient
from tests.support.eventually import PATIENCE


def http_client(*, timeout: float = 5 * PATIENCE, trust_env: bool = False, **options: Any) -> HttpClient:
    """Return a client that raises an error of httpx for every lost connection; `timeout` in seconds."""
    return HttpClient(timeout, trust_env=trust_env, **options)
