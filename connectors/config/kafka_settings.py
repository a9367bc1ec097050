"""The environment variables of the connection to Kafka and of its topics' number; `settings.py` reads them."""

import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, FilePath, SecretStr, ValidationInfo, field_validator

from connectors.config.types import Servers, Upper


class KafkaSettings(BaseModel):
    """A part of `Settings`."""

    kafka_bootstrap_servers: Servers = Field(
        "localhost:9092", description="Kafka's brokers, `host:port`, several separated by commas."
    )
    kafka_partitions: int = Field(
        12,
        ge=1,
        le=1000,
        description="Partitions of the raw topic and the topics with the same number. It changes by `topics expand` only.",
    )
    kafka_replication_factor: int = Field(
        1, ge=1, le=9, description="Copies of every topic; 3 in production (then `min.insync.replicas` is 2)."
    )
    kafka_security_protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Upper] = Field(
        "PLAINTEXT", description="`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."
    )
    kafka_sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Upper] = Field(
        "PLAIN", description="`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`."
    )
    kafka_sasl_username: str | None = Field(None, description="Needed by the two SASL protocols.")
    kafka_sasl_password: SecretStr | None = Field(None, description="Needed by the two SASL protocols.")
    kafka_ssl_cafile: FilePath | None = Field(
        None,
        description="PEM file of the authority that signed the brokers' certificates; unset = the system's. Host names in "
        "certificates are always verified.",
    )
    kafka_ssl_certfile: FilePath | None = Field(
        None,
        description="PEM file with the client's certificate and those between it and its authority, for brokers that ask for one "
        "(mTLS); needs `KAFKA_SSL_KEYFILE`, and one of the two SSL protocols.",
    )
    kafka_ssl_keyfile: FilePath | None = Field(None, description="PEM file with the private key of that certificate.")
    kafka_ssl_key_password: SecretStr | None = Field(
        None, description="Password of that key; unset = the key is not encrypted."
    )

    @field_validator("kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _sasl_is_complete(cls, value: str | SecretStr | None, info: ValidationInfo) -> str | SecretStr | None:
        protocol = info.data.get("kafka_security_protocol", "")
        if value is None and protocol.startswith("SASL"):
            raise ValueError(f"is needed by KAFKA_SECURITY_PROTOCOL={protocol}")
        return value

    @field_validator("kafka_ssl_certfile")
    @classmethod
    def _a_certificate_needs_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        protocol = info.data.get("kafka_security_protocol", "SSL")
        if value is not None and not protocol.endswith("SSL"):
            raise ValueError(f"is not used by KAFKA_SECURITY_PROTOCOL={protocol}: use SSL or SASL_SSL")
        return value

    @field_validator("kafka_ssl_keyfile")
    @classmethod
    def _certificate_and_key_are_a_pair(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("kafka_ssl_certfile")
        if value is None and certificate is not None:
            raise ValueError("is needed by KAFKA_SSL_CERTFILE")
        if value is not None and certificate is None and "kafka_ssl_certfile" in info.data:
            raise ValueError("needs KAFKA_SSL_CERTFILE")
        return value

    @field_validator("kafka_ssl_key_password")
    @classmethod
    def _key_can_be_read(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        certificate, key = info.data.get("kafka_ssl_certfile"), info.data.get("kafka_ssl_keyfile")
        if certificate is not None and key is not None:
            password = "" if value is None else value.get_secret_value()
            try:
                # Without a text OpenSSL would ask for the password of an encrypted key at the terminal.
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password)
            except (ssl.SSLError, OSError) as error:
                why = getattr(error, "reason", None) or type(error).__name__
                raise ValueError(
                    f"KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE are not a pair that it opens: {why}"
                ) from None
        return value
