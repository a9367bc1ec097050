"""The Kafka settings reach three client libraries: each gets the same options."""

import inspect
import logging
import ssl
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from connectors.config.certificate_checks import as_other_clients_check
from connectors.config.connections import kafka_connection
from connectors.config.kafka_connection import KafkaConnection
from connectors.config.settings import load_settings
from connectors.kafka.client_config import aiokafka_config, faust_broker, librdkafka_config
from connectors.kafka.faust_credentials import faust_credentials
from tests.support.authority import Authority

SERVERS = "a:9092,b:9093"


def _kafka(protocol: str) -> KafkaConnection:
    settings = load_settings(
        {
            "KAFKA_BOOTSTRAP_SERVERS": SERVERS,
            "KAFKA_SECURITY_PROTOCOL": protocol,
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": "meter",
            "KAFKA_SASL_PASSWORD": "hushed-secret",
        }
    )
    return kafka_connection(settings)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_faust_and_aiokafka_get_the_same_options(protocol: str) -> None:
    direct = aiokafka_config(_kafka(protocol))
    through_faust = dict(credentials_to_aiokafka_auth(faust_credentials(_kafka(protocol))))
    assert direct.pop("bootstrap_servers") == SERVERS
    assert faust_broker(_kafka(protocol)) == "kafka://a:9092;b:9093"
    contexts = [config.pop("ssl_context", None) for config in (direct, through_faust)]
    assert direct == through_faust
    assert direct["security_protocol"] == protocol
    for context in contexts:
        assert (context is not None) == protocol.endswith("SSL")
        if context is not None:
            assert context.check_hostname
            assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("client", [AIOKafkaProducer, AIOKafkaConsumer, AIOKafkaAdminClient])
def test_each_aiokafka_client_accepts_every_option(client: type, tmp_path: Path) -> None:
    """All of them get the same options, and an option that a client does not know raises a TypeError."""
    ca = Authority(tmp_path)
    kafka = replace(_kafka("SASL_SSL"), ssl_cafile=str(ca.cafile))
    unset = {one.name for one in fields(kafka) if getattr(kafka, one.name) in ("", None)}
    assert unset <= {"ssl_certfile", "ssl_keyfile", "ssl_key_password"}, "an option that is not set here is not seen"
    assert aiokafka_config(kafka).keys() <= inspect.signature(client).parameters.keys()


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("PLAINTEXT", {}),
        ("SSL", {"ssl.endpoint.identification.algorithm": "https"}),
        (
            "SASL_SSL",
            {
                "ssl.endpoint.identification.algorithm": "https",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": "meter",
                "sasl.password": "hushed-secret",
            },
        ),
    ],
)
def test_librdkafka_gets_only_the_options_of_its_protocol(protocol: str, expected: dict[str, Any]) -> None:
    assert librdkafka_config(_kafka(protocol)) == {
        "bootstrap.servers": SERVERS,
        "security.protocol": protocol,
        "logger": logging.getLogger("librdkafka"),
        **expected,
    }


def test_every_client_presents_the_client_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = authority.client("meter", "hushed-secret")
    kafka = KafkaConnection(
        SERVERS, "SSL", ssl_cafile=str(authority.cafile), ssl_certfile=str(client.certificate),
        ssl_keyfile=str(client.key), ssl_key_password="hushed-secret",
    )  # fmt: skip
    result = librdkafka_config(kafka)
    assert result["ssl.ca.location"] == str(authority.cafile)
    assert result["ssl.certificate.location"] == str(client.certificate)
    assert result["ssl.key.location"] == str(client.key)
    assert result["ssl.key.password"] == "hushed-secret"
    assert "hushed-secret" not in repr(kafka)
    faust = credentials_to_aiokafka_auth(faust_credentials(kafka))
    for config in (aiokafka_config(kafka), faust):
        assert _subject_shown(config["ssl_context"], authority) == "meter"


def _subject_shown(context: ssl.SSLContext, authority: Authority) -> str:
    """The name in the certificate that a client with this context presents to a server."""
    server = authority.broker("localhost")
    listening = as_other_clients_check(
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.cafile))
    )
    listening.load_cert_chain(server.both)
    listening.verify_mode = ssl.CERT_REQUIRED
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    other = listening.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (one, other):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    shown = other.getpeercert() or {}
    return dict(part for [part] in shown["subject"])["commonName"]
