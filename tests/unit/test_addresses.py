"""A message about a neighbour that cannot be reached names the address and its setting, and no password."""

import pytest

from connectors.addresses import with_address
from connectors.lago.errors import LagoRejected, LagoUnavailable
from connectors.settings import Settings, load_settings
from schemas.errors import ConfigurationError, MeterbridgeError, Rejected, Unavailable

ENVIRONMENT = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka-1:9092,kafka-2:9092",
    "LAGO_API_URL": "http://user:secret@lago:3000/api",
    "DATABASE_URL": "postgresql://writer:secret@db:6543/meterbridge",
    "LITELLM_DATABASE_URL": "postgresql://reader:secret@litellm-db:5433/litellm",
}


def settings() -> Settings:
    return load_settings(ENVIRONMENT)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unavailable("kafka_unavailable", "list topics"), "asked at KAFKA_BOOTSTRAP_SERVERS=kafka-1:9092,kafka-2:9092"),
        (Unavailable("kafka_timeout"), "asked at KAFKA_BOOTSTRAP_SERVERS=kafka-1:9092,kafka-2:9092"),
        (LagoUnavailable("connect", "ConnectError"), "asked at LAGO_API_URL=http://lago:3000/api"),
        (LagoUnavailable("timeout"), "asked at LAGO_API_URL=http://lago:3000/api"),
        (LagoUnavailable("http_401", status=401), "Lago at LAGO_API_URL=http://lago:3000/api refuses LAGO_API_KEY"),
        (Unavailable("postgres_away", "ConnectionRefusedError"), "asked at DATABASE_URL or POSTGRES_HOST: db:6543"),
        (Unavailable("litellm_db", "refused"), "asked at LITELLM_DATABASE_URL: litellm-db:5433"),
    ],
)
def test_the_address_and_its_setting_follow_what_went_wrong(error: MeterbridgeError, told: str) -> None:
    assert with_address(error, settings) == f"{error}; {told}"


@pytest.mark.parametrize(
    "error", [LagoRejected("http_422", "plan_not_found", status=422), Rejected("bad_time"), Unavailable("spool_full")]
)
def test_what_is_about_no_address_is_told_as_it_is(error: MeterbridgeError) -> None:
    assert with_address(error, settings) == str(error)


def test_where_the_settings_themselves_are_wrong_the_error_is_told_all_the_same() -> None:
    def wrong() -> Settings:
        raise ConfigurationError("KAFKA_PARTITIONS", "KAFKA_PARTITIONS must be a number")

    assert with_address(Unavailable("kafka_unavailable"), wrong) == "kafka_unavailable"


def test_no_address_holds_a_password() -> None:
    for reason in ("kafka_unavailable", "postgres_away", "litellm_db"):
        assert "secret" not in with_address(Unavailable(reason), settings)
    assert "secret" not in with_address(LagoUnavailable("connect"), settings)
