"""How clients reach Kafka: one block of settings, in the words of librdkafka, of aiokafka and of Faust (faust_credentials.py).

PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL, with PLAIN or SCRAM. Host names of certificates are verified.
"""

import logging
import ssl
from typing import Any

from connectors.settings import Settings


def librdkafka_config(settings: Settings) -> dict[str, Any]:
    """Connection settings for confluent-kafka's clients; their log goes to the logger `librdkafka` when polled."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "security.protocol": settings.kafka_security_protocol,
        "logger": logging.getLogger("librdkafka"),
    }
    if _encrypted(settings) and settings.kafka_ssl_cafile:
        config["ssl.ca.location"] = str(settings.kafka_ssl_cafile)
    if _authenticated(settings):
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_sasl_username
        config["sasl.password"] = _password(settings)
    return config


def aiokafka_config(settings: Settings) -> dict[str, Any]:
    """Connection arguments for aiokafka's producers, consumers and admin client."""
    config: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
    }
    if _encrypted(settings):
        config["ssl_context"] = _ssl_context(settings)
    if _authenticated(settings):
        config["sasl_mechanism"] = settings.kafka_sasl_mechanism
        config["sasl_plain_username"] = settings.kafka_sasl_username
        config["sasl_plain_password"] = _password(settings)
    return config


def faust_broker(settings: Settings) -> str:
    """The brokers as Faust's URL: `kafka://a:9092;b:9092`."""
    return "kafka://" + settings.kafka_bootstrap_servers.replace(",", ";")


def _encrypted(settings: Settings) -> bool:
    return settings.kafka_security_protocol.endswith("SSL")


def _authenticated(settings: Settings) -> bool:
    return settings.kafka_security_protocol.startswith("SASL")


def _password(settings: Settings) -> str:
    """`Settings` refuses a SASL protocol without one."""
    return settings.kafka_sasl_password.get_secret_value() if settings.kafka_sasl_password else ""


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    cafile = settings.kafka_ssl_cafile
    return ssl.create_default_context(cafile=str(cafile) if cafile else None)
