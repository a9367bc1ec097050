"""A real Kafka broker for tests, benchmarks and soak runs: a configured one, Docker's, or Maven's.

`start_kafka(os.environ)` picks: `KAFKA_BOOTSTRAP_SERVERS` if set; else a container when a Docker
engine answers and can have its images; else Apache Kafka from Maven Central, one KRaft node on loopback. Failing to start
is an error, never a reason to skip. `python -m tests.support.kafka` runs one in the foreground.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol

from tests.support.kafka.cluster import KafkaCluster
from tests.support.kafka.docker import DockerKafka, docker_has_kafka
from tests.support.kafka.maven import MavenKafka

__all__ = ["ConfiguredKafka", "DockerKafka", "Kafka", "KafkaCluster", "MavenKafka", "broker_kind", "start_kafka"]


class Kafka(Protocol):
    """One broker; after `kill()` and `restart()` it has the same address and the same data."""

    bootstrap: str

    def describe(self) -> str:
        """Return which broker this is, for people."""

    def kill(self) -> None:
        """SIGKILL the broker; returns when it is gone."""

    def restart(self) -> None:
        """Start the broker again, stopping it first if it runs; returns when it answers."""

    def stop(self) -> None:
        """End the broker and remove its data; twice does nothing."""


def start_kafka(
    environ: Mapping[str, str], broker_settings: Mapping[str, str] | None = None, *, short_lived: bool = True
) -> Kafka:
    """Start or find a broker. `broker_settings` overrides server properties; a configured broker ignores it.

    `short_lived`: Maven's broker starts fast; without it, it is faster once it has run for a while.

    Raises:
        RuntimeError: no broker could be had; the message says what is missing.
    """
    match broker_kind(environ):
        case "configured":
            return ConfiguredKafka(environ["KAFKA_BOOTSTRAP_SERVERS"])
        case "docker":
            return DockerKafka(broker_settings)
        case "maven":
            return MavenKafka(broker_settings, options=None if short_lived else ())


def broker_kind(environ: Mapping[str, str]) -> Literal["configured", "docker", "maven"]:
    """Return which broker `start_kafka` would take."""
    if environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return "configured"
    return "docker" if docker_has_kafka() else "maven"


@dataclass
class ConfiguredKafka:
    """Another program's server: used, never killed."""

    bootstrap: str

    def describe(self) -> str:
        return f"real Kafka at {self.bootstrap} (KAFKA_BOOTSTRAP_SERVERS)"

    def kill(self) -> NoReturn:
        raise RuntimeError("the broker named by KAFKA_BOOTSTRAP_SERVERS is not ours to kill; unset it for fault tests")

    def restart(self) -> NoReturn:
        self.kill()

    def stop(self) -> None:
        """Leave it unchanged."""
