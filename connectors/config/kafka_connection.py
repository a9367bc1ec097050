"""How Kafka is reached and how its topics are to be, as values: made once from the settings (connectors/config/connections.py)."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """How clients reach the brokers. Its `repr` does not show the password.

    Fields:
        servers: the brokers, `host:port`, several separated by commas.
        security_protocol: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
        sasl_mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; without meaning where the protocol has no SASL.
        ssl_cafile: PEM file of the authority that signed the brokers' certificates; `""` = the system's.
    """

    servers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ssl_cafile: str = ""

    @property
    def encrypted(self) -> bool:
        """Whether the connection is TLS."""
        return self.security_protocol.endswith("SSL")

    @property
    def authenticated(self) -> bool:
        """Whether a user name and a password are sent."""
        return self.security_protocol.startswith("SASL")


@dataclass(frozen=True, slots=True)
class TopicLayout:
    """How the topics of the catalogue are to be on the broker.

    Fields:
        prefix: precedes every name (`TOPIC_PREFIX`).
        partitions: of the raw topic and its peers (`KAFKA_PARTITIONS`).
        replication_factor: copies of every topic.
    """

    prefix: str
    partitions: int
    replication_factor: int
