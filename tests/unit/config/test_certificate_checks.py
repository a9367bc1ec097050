"""A certificate of a private authority counts in every Python as it does for the clients of Kafka and Postgres."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.config import http_client
from connectors.config.kafka_connection import KafkaConnection
from connectors.config.postgres_urls import connecting
from connectors.kafka.client_config import aiokafka_config
from meterbridge_litellm import http_clients
from meterbridge_sdk import org_billing_service

KINDS: dict[str, Callable[[], ssl.SSLContext]] = {
    "kafka": lambda: aiokafka_config(KafkaConnection("kafka:9093", "SSL"))["ssl_context"],
    "http": http_client._authorities.__wrapped__,
    "plugin": http_clients._authorities,
    "postgres": lambda: connecting("postgresql://db/usage?sslmode=verify-full")["ssl"],
}


@pytest.fixture
def of_python_3_13(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssl` makes the contexts of Python 3.13, which are strict."""

    def strict(create: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
        def created(*args: Any, **options: Any) -> ssl.SSLContext:
            context = create(*args, **options)
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            return context

        return created

    monkeypatch.setattr(ssl, "create_default_context", strict(ssl.create_default_context))
    monkeypatch.setattr(httpx, "create_ssl_context", strict(httpx.create_ssl_context))


@pytest.mark.usefixtures("of_python_3_13")
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_is_verified_as_before_python_3_13(kind: str) -> None:
    context = KINDS[kind]()
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.usefixtures("of_python_3_13")
async def test_the_sdk_verifies_meterbridge_as_before_python_3_13() -> None:
    async with org_billing_service("https://billing.example", "key") as service:
        context = service.client._transport._http._transport._pool._ssl_context  # type: ignore[attr-defined]
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_every_http_client_of_the_product_has_these_contexts() -> None:
    """httpx makes the context of a client that gets none."""
    root = Path(__file__).parents[3]
    making = ("httpx.AsyncClient(", "httpx.Client(", "(httpx.AsyncClient)", "ssl.create_default_context(")
    found = {
        str(path.relative_to(root))
        for path in (root / "connectors").rglob("*.py")
        if any(words in path.read_text() for words in making)
    }
    assert found == {
        "connectors/config/http_client.py",
        "connectors/config/postgres_urls.py",
        "connectors/kafka/client_config.py",
        "connectors/litellm/plugin/meterbridge_litellm/http_clients.py",
        "connectors/sdk/meterbridge_sdk/service.py",
    }
