"""Every protocol and mechanism opens a real broker's door, to both clients, and only with the right key."""

import subprocess
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
from tests.support.eventually import eventually
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


@dataclass
class House:
    """A broker with one door a protocol."""

    ports: dict[str, int]
    cafile: Path

    def settings(self, protocol: str, mechanism: str, **other: str) -> Settings:
        return load_settings(
            {
                "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{self.ports[protocol]}",
                "KAFKA_SECURITY_PROTOCOL": protocol,
                "KAFKA_SASL_MECHANISM": mechanism,
                "KAFKA_SASL_USERNAME": USER,
                "KAFKA_SASL_PASSWORD": PASSWORD,
                "KAFKA_SSL_CAFILE": str(self.cafile),
                **other,
            }
        )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("keys")
    keystore, cafile = _self_signed(folder)
    ports = {protocol: free_port() for protocol in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")}
    controller = free_port()
    module = "org.apache.kafka.common.security.{} required".format
    plain = f'{module("plain.PlainLoginModule")} user_{USER}="{PASSWORD}";'
    settings = {
        "listeners": ",".join(
            f"{name}://127.0.0.1:{port}" for name, port in {**ports, "CONTROLLER": controller}.items()
        ),
        "advertised.listeners": ",".join(f"{name}://localhost:{port}" for name, port in ports.items()),
        "listener.security.protocol.map": ",".join(f"{name}:{name}" for name in ports) + ",CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(keystore),
        "ssl.keystore.password": "changeit",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    }
    for tracker in ("sasl_plaintext", "sasl_ssl"):
        settings[f"listener.name.{tracker}.plain.sasl.jaas.config"] = plain
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            settings[f"listener.name.{tracker}.{mechanism}.sasl.jaas.config"] = module("scram.ScramLoginModule") + ";"
    broker = MavenKafka(settings, port=ports["PLAINTEXT"])
    try:
        _furnish(broker)
        yield House(ports, cafile)
    finally:
        broker.stop()


def _self_signed(folder: Path) -> tuple[Path, Path]:
    """A key for `localhost`, and its certificate as the authority's file."""
    keystore, cafile = folder / "broker.p12", folder / "ca.pem"
    store = ["-keystore", str(keystore), "-storepass", "changeit", "-alias", "broker"]
    make = ["-genkeypair", "-keyalg", "RSA", "-dname", "CN=localhost", "-ext", "san=dns:localhost", "-validity", "2"]
    subprocess.run(["keytool", *make, *store], check=True, capture_output=True)
    subprocess.run(["keytool", "-exportcert", "-rfc", "-file", str(cafile), *store], check=True, capture_output=True)
    return keystore, cafile


def _furnish(broker: MavenKafka) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic("inside", 1)])["inside"].result()
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        user = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
        admin.alter_user_scram_credentials([user])[USER].result()
    eventually(lambda: "inside" in admin.list_topics(timeout=10).topics)


@pytest.mark.parametrize(("protocol", "mechanism"), DOORS)
async def test_both_clients_come_in(house: House, protocol: str, mechanism: str) -> None:
    settings = house.settings(protocol, mechanism)
    assert check_topics(*topics_of(settings))[0].startswith("Topic litellm.usage.raw is missing")
    async with AIOKafkaProducer(**aiokafka_config(kafka_connection(settings))) as producer:
        assert (await producer.send_and_wait("inside", b"x")).offset >= 0


@pytest.mark.parametrize(("protocol", "mechanism"), [tracker for tracker in DOORS if "SASL" in tracker[0]])
async def test_a_wrong_password_stays_outside_and_the_log_says_why(
    house: House, protocol: str, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    await _stays_outside(house.settings(protocol, mechanism, KAFKA_SASL_PASSWORD="wrong password"))
    assert "SASL authentication error" in caplog.text
    assert "wrong password" not in caplog.text


async def test_a_broker_that_the_authority_did_not_sign_is_not_trusted(house: House) -> None:
    await _stays_outside(house.settings("SSL", "PLAIN", KAFKA_SSL_CAFILE=""))


async def test_a_certificate_for_another_host_is_not_trusted(house: House) -> None:
    elsewhere = f"127.0.0.1:{house.ports['SSL']}"
    await _stays_outside(house.settings("SSL", "PLAIN", KAFKA_BOOTSTRAP_SERVERS=elsewhere))


async def _stays_outside(settings: Settings) -> None:
    with pytest.raises(Unavailable):
        check_topics(*topics_of(settings), limit_s=1)
    producer = AIOKafkaProducer(**aiokafka_config(kafka_connection(settings)))
    try:
        with pytest.raises(KafkaError):
            await producer.start()
    finally:
        await producer.stop()
