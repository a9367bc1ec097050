"""A certificate of a private authority counts in every Python as it does for the clients of Kafka and Postgres."""

import ssl
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from connectors.config.kafka_connection import KafkaConnection
from connectors.config.postgres_urls import connecting
from connectors.kafka.client_config import aiokafka_config
from connectors.lago import transport

KINDS: dict[str, Callable[[], ssl.SSLContext]] = {
    "kafka": lambda: aiokafka_config(KafkaConnection("kafka:9093", "SSL"))["ssl_context"],
    "lago": transport._authorities.__wrapped__,
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
