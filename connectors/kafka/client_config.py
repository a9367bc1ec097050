"""Options of Kafka's clients: how each connects (a `KafkaConnection` for librdkafka and aiokafka), and those of producers.

For Faust it makes the brokers' URL only; Faust's credentials are in faust_credentials.py, its options in
streams/runtime/faust_options.py. Transactional producers have further options in streams/runtime/transactions.py.

PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL are supported, with PLAIN or SCRAM, and with the certificate of the client (mTLS).
Host names in certificates are verified.
"""

import logging
import ssl
from collections.abc import Mapping
from typing import Any

from connectors.config.certificate_checks import as_other_clients_check
from connectors.config.kafka_connection import KafkaConnection


def librdkafka_config(kafka: KafkaConnection) -> dict[str, Any]:
    """Return the settings of confluent-kafka's clients. They log to the logger `librdkafka` when they are polled."""
    config: dict[str, Any] = {
        "bootstrap.servers": kafka.servers,
        "security.protocol": kafka.security_protocol,
        "logger": logging.getLogger("librdkafka"),
    }
    if kafka.encrypted:
        config["ssl.endpoint.identification.algorithm"] = "https"
        files = {
            "ssl.ca.location": kafka.ssl_cafile,
            "ssl.certificate.location": kafka.ssl_certfile,
            "ssl.key.location": kafka.ssl_keyfile,
            "ssl.key.password": kafka.ssl_key_password,
        }
        config |= {name: value for name, value in files.items() if value}
    if kafka.authenticated:
        config["sasl.mechanism"] = kafka.sasl_mechanism
        config["sasl.username"] = kafka.sasl_username
        config["sasl.password"] = kafka.sasl_password
    return config


def aiokafka_config(kafka: KafkaConnection) -> dict[str, Any]:
    """Return the arguments of aiokafka's producers, consumers and admin client."""
    config: dict[str, Any] = {
        "bootstrap_servers": kafka.servers,
        "security_protocol": kafka.security_protocol,
    }
    if kafka.encrypted:
        config["ssl_context"] = _ssl_context(kafka)
    if kafka.authenticated:
        config["sasl_mechanism"] = kafka.sasl_mechanism
        config["sasl_plain_username"] = kafka.sasl_username
        config["sasl_plain_password"] = kafka.sasl_password
    return config


def producer_config(
    bootstrap: str,
    *,
    answer_within_s: float,
    client_id: str = "meterbridge-ingress",
    security: Mapping[str, str | int | bool] | None = None,
) -> dict[str, str | int | float | bool]:
    """Return librdkafka's settings for durable, ordered records without duplicates, with the partitioner of Java
    clients.

    Args:
        answer_within_s: how long senders wait (`WEBHOOK_TIMEOUT`). A record fails after two thirds of it, so that the sender
            gets 503 before it gives up.
    """
    return {
        "bootstrap.servers": bootstrap,
        "client.id": client_id,
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": 3,
        "message.timeout.ms": int(answer_within_s * 2000 / 3),
        "reconnect.backoff.max.ms": 1000,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 256 << 10,
        **(security or {}),
    }


def faust_broker(kafka: KafkaConnection) -> str:
    """Return the brokers as a URL for Faust: `kafka://a:9092;b:9092`."""
    return "kafka://" + kafka.servers.replace(",", ";")


def _ssl_context(kafka: KafkaConnection) -> ssl.SSLContext:
    context = as_other_clients_check(ssl.create_default_context(cafile=kafka.ssl_cafile or None))
    if kafka.ssl_certfile:
        # Without a text, OpenSSL would ask for the password of an encrypted key on the terminal.
        context.load_cert_chain(kafka.ssl_certfile, kafka.ssl_keyfile, kafka.ssl_key_password)
    return context
