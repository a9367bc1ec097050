"""The connection to Kafka and the layout of its topics, as values (connectors/config/connections.py makes them)."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """How clients connect to the brokers. The `repr` does not contain the passwords.

    Fields:
        servers: the brokers, `host:port`, separated by commas.
        security_protocol: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
        sasl_mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; unused by protocols without SASL.
        ssl_cafile: PEM file of the authority that signed the brokers' certificates; `""` = the system's authorities.
        ssl_certfile, ssl_keyfile: PEM files of the client's certificate and its key; `""` = the client has no
            certificate.
        ssl_key_password: of the key; `""` = the key is not encrypted.
    """

    servers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    ssl_key_password: str = field(default="", repr=False)

    @property
    def encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.security_protocol.endswith("SSL")

    @property
    def authenticated(self) -> bool:
        """Whether clients send a user name and a password."""
        return self.security_protocol.startswith("SASL")


@dataclass(frozen=True, slots=True)
class TopicLayout:
    """How the topics of the catalogue are created.

    Fields:
        prefix: of every name (`TOPIC_PREFIX`).
        partitions: of the raw topic and the topics with the same number (`KAFKA_PARTITIONS`).
        replication_factor: copies of every topic.
    """

    prefix: str
    partitions: int
    replication_factor: int
