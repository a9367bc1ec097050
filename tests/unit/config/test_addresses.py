"""An error about a service that cannot be reached names the address and its setting, but no password."""

import re

import pytest
from aiokafka.errors import IllegalStateError, KafkaConnectionError, KafkaTimeoutError, TopicAuthorizationFailedError
from confluent_kafka import KafkaError as LibrdkafkaError
from confluent_kafka import KafkaException

from connectors.cli.unreachable import with_address
from connectors.config.settings import Settings, load_settings
from connectors.config.unanswered import KAFKA_RUNS, sentence_of
from connectors.kafka.errors import kafka_sentence
from connectors.lago.errors import LagoRejected, LagoUnavailable
from schemas.errors import ConfigurationError, MeterbridgeError, Rejected, Unavailable

ENVIRONMENT = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka-1:9092,kafka-2:9092",
    "LAGO_API_URL": "http://user:secret@lago:3000/api",
    "DATABASE_URL": "postgresql://writer:secret@db:6543/meterbridge",
    "LITELLM_DATABASE_URL": "postgresql://reader:secret@litellm-db:5433/litellm",
}


def settings() -> Settings:
    return load_settings(ENVIRONMENT)


def servers() -> str:
    return settings().kafka_bootstrap_servers


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LagoUnavailable("http_401", status=401), "Lago at LAGO_API_URL=http://lago:3000/api refuses LAGO_API_KEY"),
        (
            LagoUnavailable("http_404", status=404),
            "asked at LAGO_API_URL=http://lago:3000/api: is this Lago's address?",
        ),
        (
            LagoUnavailable("not_lago", "HTTP 400 with 5 bytes that are not Lago's answer", status=400),
            "asked at LAGO_API_URL=http://lago:3000/api: is this Lago's address?",
        ),
        (
            Unavailable("postgres_denied", "InvalidPasswordError 28P01"),
            "Postgres at DATABASE_URL or POSTGRES_HOST: db:6543 refuses the account: correct its name, its password or its rights",
        ),
        (Unavailable("litellm_db", "refused"), "asked at LITELLM_DATABASE_URL: litellm-db:5433"),
    ],
)
def test_the_message_ends_with_the_address_and_its_setting(error: MeterbridgeError, told: str) -> None:
    assert with_address(error, settings) == f"{error}; {told}"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LagoUnavailable("connect", "ConnectError"), "Lago does not answer at LAGO_API_URL=http://lago:3000/api"),
        (LagoUnavailable("timeout"), "Lago does not answer in time at LAGO_API_URL=http://lago:3000/api"),
        (
            Unavailable("postgres_away", "ConnectionRefusedError"),
            "Postgres does not answer at DATABASE_URL or POSTGRES_HOST: db:6543 (connection refused)",
        ),
        (
            LagoUnavailable("timeout", "HTTP 504"),
            "Lago does not answer in time at LAGO_API_URL=http://lago:3000/api (HTTP 504)",
        ),
        (
            Unavailable("postgres_slow", "no answer in time"),
            "Postgres does not answer in time at DATABASE_URL or POSTGRES_HOST: db:6543",
        ),
        (
            Unavailable("postgres_away", "gaierror"),
            "Postgres does not answer at DATABASE_URL or POSTGRES_HOST: db:6543 (unknown host name)",
        ),
    ],
)
def test_an_unreachable_service_gives_one_sentence_without_an_exception_name(
    error: MeterbridgeError, told: str
) -> None:
    runs = KAFKA_RUNS if told.startswith("Kafka") else "is it running?"
    assert with_address(error, settings) == f"{told}: {runs}"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            LagoUnavailable("no_answer", "RemoteProtocolError"),
            "Lago closed the connection without an answer at LAGO_API_URL=http://lago:3000/api",
        ),
        (
            Unavailable("kafka_timeout", "_MSG_TIMED_OUT"),
            "Kafka does not confirm the record at KAFKA_BOOTSTRAP_SERVERS=kafka-1:9092,kafka-2:9092 (_MSG_TIMED_OUT)",
        ),
        (
            Unavailable("kafka_unavailable", "TOPIC_AUTHORIZATION_FAILED"),
            "Kafka does not take the record at KAFKA_BOOTSTRAP_SERVERS=kafka-1:9092,kafka-2:9092 (TOPIC_AUTHORIZATION_FAILED)",
        ),
    ],
)
def test_a_service_that_runs_is_not_asked_for_whether_it_runs(error: MeterbridgeError, told: str) -> None:
    assert with_address(error, settings) == told


@pytest.mark.parametrize(
    "error",
    [
        *(LagoUnavailable(reason) for reason in ("connect", "timeout", "no_answer")),
        *(
            Unavailable(reason, "X")
            for reason in ("kafka_unavailable", "kafka_timeout", "postgres_away", "postgres_slow")
        ),
    ],
)
def test_commands_and_callers_of_http_read_the_same_sentence_but_for_the_address(error: Unavailable) -> None:
    place = re.compile(r" at [A-Z_]+_(URL or POSTGRES_HOST: |URL=|SERVERS=)\S+?(?=:? |: is|$)")
    command = (
        place.sub("", with_address(error, settings)).removesuffix(f": {KAFKA_RUNS}").removesuffix(": is it running?")
    )
    begin, _, setting = sentence_of(error).partition("; if it lasts, the operator must check ")
    assert begin == f"{command}. Send the request again later"
    assert setting.removesuffix(".") in with_address(error, settings)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unavailable("kafka_unavailable", "list topics"), " (list topics)"),
        (KafkaConnectionError("Unable to bootstrap"), ""),
        (KafkaTimeoutError(), ""),
        (KafkaException(LibrdkafkaError(LibrdkafkaError._TRANSPORT)), " (Local: Broker transport failure)"),
    ],
)
def test_an_unreachable_kafka_gives_one_sentence_for_each_client_library(error: Exception, said: str) -> None:
    result = kafka_sentence(error, servers) or with_address(error, settings)  # type: ignore[arg-type]
    assert result == f"Kafka does not answer at KAFKA_BOOTSTRAP_SERVERS=kafka-1:9092,kafka-2:9092{said}: {KAFKA_RUNS}"


def test_a_variable_that_has_its_default_may_be_unset_and_the_sentence_says_so() -> None:
    unset = load_settings({})
    kafka = with_address(Unavailable("kafka_unavailable"), lambda: unset)
    assert kafka.startswith(
        "Kafka does not answer at the default KAFKA_BOOTSTRAP_SERVERS=localhost:9092: is it running"
    )
    lago = with_address(LagoUnavailable("connect"), lambda: unset)
    assert lago == "Lago does not answer at the default LAGO_API_URL=http://localhost:3000: is it running?"
    assert "default" not in with_address(Unavailable("kafka_unavailable"), settings)


def test_a_database_that_does_not_exist_or_is_not_migrated_is_named_without_its_password() -> None:
    for detail in ("the database does not exist: make it", "UndefinedTableError 42P01: run `meterbridge db migrate`"):
        error = Unavailable("postgres_schema", detail)
        assert with_address(error, settings) == (
            f"{error}; asked the database 'meterbridge' of DATABASE_URL or POSTGRES_DB, at db:6543"
        )


def test_a_refusal_by_kafka_is_reported_as_such_and_our_bug_stays_a_bug() -> None:
    result = kafka_sentence(TopicAuthorizationFailedError("billing.orgs"), servers)
    assert result.startswith("Kafka at KAFKA_BOOTSTRAP_SERVERS=kafka-1:9092,kafka-2:9092 refuses: ")
    assert "TopicAuthorizationFailedError" in result
    for bug in (IllegalStateError("not assigned"), ValueError("a bug"), KeyError("x")):
        assert kafka_sentence(bug, servers) == ""


@pytest.mark.parametrize(
    "error", [LagoRejected("http_422", "plan_not_found", status=422), Rejected("bad_time"), Unavailable("spool_full")]
)
def test_an_error_that_concerns_no_address_is_reported_unchanged(error: MeterbridgeError) -> None:
    assert with_address(error, settings) == str(error)


def test_an_error_is_reported_also_if_the_settings_are_wrong() -> None:
    def wrong() -> Settings:
        raise ConfigurationError("KAFKA_PARTITIONS", "KAFKA_PARTITIONS must be a number")

    assert with_address(Unavailable("kafka_unavailable"), wrong) == "kafka_unavailable"
    assert with_address(Unavailable("postgres_away"), wrong) == "postgres_away"


def test_no_shown_address_contains_a_password() -> None:
    for reason in ("kafka_unavailable", "postgres_away", "litellm_db"):
        assert "secret" not in with_address(Unavailable(reason), settings)
    assert "secret" not in with_address(LagoUnavailable("connect"), settings)
