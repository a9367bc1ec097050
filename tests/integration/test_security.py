"""Every protocol and mechanism connects to a real broker, from both clients, and only with the right credential."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from confluent_kafka.admin import (
    AdminClient,
    NewTopic,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from connectors.config.connections import kafka_connection
from connectors.config.settings import Settings, load_settings
from connectors.kafka.admin import check_topics
from connectors.kafka.client_config import aiokafka_config
from schemas.errors import Unavailable
from tests.support.authority import Authority
from tests.support.eventually import PATIENCE, eventually
from tests.support.kafka import MavenKafka
from tests.support.ports import free_port
from tests.support.values import topics_of

USER, PASSWORD = "meter", "hush, 'quoted'"
DOORS = [
    ("PLAINTEXT", "PLAIN"),
    ("SSL", "PLAIN"),
    ("SASL_PLAINTEXT", "PLAIN"),
    ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
    ("SASL_SSL", "PLAIN"),
    ("SASL_SSL", "SCRAM-SHA-512"),
]
#: The door that asks for a client's certificate.
MUTUAL = "MUTUAL"


@dataclass
class SecuredBroker:
    """A broker with one listener for each protocol."""

    ports: dict[str, int]
    authority: Authority

    def settings(self, protocol: str, mechanism: str, **other: str) -> Settings:
        return load_settings(
            {
                "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{self.ports[protocol]}",
                "KAFKA_SECURITY_PROTOCOL": protocol,
                "KAFKA_SASL_MECHANISM": mechanism,
                "KAFKA_SASL_USERNAME": USER,
                "KAFKA_SASL_PASSWORD": PASSWORD,
                "KAFKA_SSL_CAFILE": str(self.authority.cafile),
                **other,
            }
        )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    folder = tmp_path_factory.mktemp("keys")
    authority = Authority(folder)
    protocols = {name: name for name in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")} | {MUTUAL: "SSL"}
    ports = {name: free_port() for name in protocols}
    controller = free_port()
    module = "org.apache.kafka.common.security.{} required".format
    plain = f'{module("plain.PlainLoginModule")} user_{USER}="{PASSWORD}";'
    settings = {
        "listeners": ",".join(
            f"{name}://127.0.0.1:{port}" for name, port in {**ports, "CONTROLLER": controller}.items()
        ),
        "advertised.listeners": ",".join(f"{name}://localhost:{port}" for name, port in ports.items()),
        "listener.security.protocol.map": ",".join(map(":".join, protocols.items())) + ",CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.broker("localhost").both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.cafile),
        f"listener.name.{MUTUAL.lower()}.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    }
    for tracker in ("sasl_plaintext", "sasl_ssl"):
        settings[f"listener.name.{tracker}.plain.sasl.jaas.config"] = plain
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            settings[f"listener.name.{tracker}.{mechanism}.sasl.jaas.config"] = module("scram.ScramLoginModule") + ";"
    broker = MavenKafka(settings, port=ports["PLAINTEXT"])
    try:
        _furnish(broker)
        yield SecuredBroker(ports, authority)
    finally:
        broker.stop()


def _furnish(broker: MavenKafka) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic("inside", 1)])["inside"].result()
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        user = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
        admin.alter_user_scram_credentials([user])[USER].result()
    eventually(lambda: "inside" in admin.list_topics(timeout=10 * PATIENCE).topics)


@pytest.mark.parametrize(("protocol", "mechanism"), DOORS)
async def test_both_clients_connect(house: SecuredBroker, protocol: str, mechanism: str) -> None:
    settings = house.settings(protocol, mechanism)
    assert check_topics(*topics_of(settings))[0].startswith("Topic litellm.usage.raw is missing")
    async with AIOKafkaProducer(**aiokafka_config(kafka_connection(settings))) as producer:
        assert (await producer.send_and_wait("inside", b"x")).offset >= 0


@pytest.mark.parametrize(("protocol", "mechanism"), [tracker for tracker in DOORS if "SASL" in tracker[0]])
async def test_a_wrong_password_is_refused_and_the_log_says_why(
    house: SecuredBroker, protocol: str, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    await _stays_outside(house.settings(protocol, mechanism, KAFKA_SASL_PASSWORD="wrong password"))
    assert "SASL authentication error" in caplog.text
    assert "wrong password" not in caplog.text


async def test_a_broker_that_the_authority_did_not_sign_is_not_trusted(house: SecuredBroker) -> None:
    await _stays_outside(house.settings("SSL", "PLAIN", KAFKA_SSL_CAFILE=""))


async def test_a_certificate_for_another_host_is_not_trusted(house: SecuredBroker) -> None:
    elsewhere = f"127.0.0.1:{house.ports['SSL']}"
    await _stays_outside(house.settings("SSL", "PLAIN", KAFKA_BOOTSTRAP_SERVERS=elsewhere))


async def test_a_client_with_a_certificate_of_the_authority_connects(house: SecuredBroker) -> None:
    settings = _with_certificate(house, house.authority)
    assert check_topics(*topics_of(settings))[0].startswith("Topic litellm.usage.raw is missing")
    async with AIOKafkaProducer(**aiokafka_config(kafka_connection(settings))) as producer:
        assert (await producer.send_and_wait("inside", b"x")).offset >= 0


async def test_a_client_without_a_certificate_or_with_a_foreign_one_is_refused(
    house: SecuredBroker, tmp_path: Path
) -> None:
    await _stays_outside(_with_certificate(house, Authority(tmp_path, "stranger")))
    door = {"KAFKA_BOOTSTRAP_SERVERS": f"localhost:{house.ports[MUTUAL]}"}
    await _stays_outside(house.settings("SSL", "PLAIN", **door))


def _with_certificate(house: SecuredBroker, authority: Authority) -> Settings:
    client = authority.client("meter", PASSWORD)
    return house.settings(
        "SSL",
        "PLAIN",
        KAFKA_BOOTSTRAP_SERVERS=f"localhost:{house.ports[MUTUAL]}",
        KAFKA_SSL_CERTFILE=str(client.certificate),
        KAFKA_SSL_KEYFILE=str(client.key),
        KAFKA_SSL_KEY_PASSWORD=PASSWORD,
    )


async def _stays_outside(settings: Settings) -> None:
    with pytest.raises(Unavailable):
        check_topics(*topics_of(settings), limit_s=1)
    producer = AIOKafkaProducer(**aiokafka_config(kafka_connection(settings)))
    try:
        with pytest.raises(KafkaError):
            await producer.start()
    finally:
        await producer.stop()
