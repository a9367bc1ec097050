"""Faust's Kafka credentials. They are in a separate module, because the import of Faust takes a third of a second."""

from faust.auth import Credentials, SASLCredentials, SSLCredentials

from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.client_config import aiokafka_config


def faust_credentials(kafka: KafkaConnection) -> Credentials | None:
    """Return Faust's `broker_credentials`; None = PLAINTEXT."""
    config = aiokafka_config(kafka)
    context = config.get("ssl_context")
    if "sasl_mechanism" in config:
        return SASLCredentials(
            username=config["sasl_plain_username"],
            password=config["sasl_plain_password"],
            mechanism=config["sasl_mechanism"],
            ssl_context=context,
        )
    return SSLCredentials(context) if context else None
