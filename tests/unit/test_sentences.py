"""What a command ends with names the address that was tried and its setting, and no secret."""

import pytest

from connectors.commands.sentences import sentence_of
from connectors.lago.errors import LagoUnavailable
from schemas.errors import MeterbridgeError, Unavailable


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LAGO_API_URL": "http://lago.example:3000",
        "LAGO_API_KEY": "hush",
        "KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092",
        "DATABASE_URL": "postgresql://u:hush@db.example:5433/m?sslmode=require",
        "LITELLM_DATABASE_URL": "postgresql://u:hush@llm.example/l",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LagoUnavailable("connect", "ConnectError"), "Lago at http://lago.example:3000 does not answer (LAGO_API_URL)"),
        (LagoUnavailable("http_401", status=401), "Lago at http://lago.example:3000 refuses LAGO_API_KEY"),
        (Unavailable("kafka_unavailable", "list topics"), "kafka.example:9092? (KAFKA_BOOTSTRAP_SERVERS)"),
        (Unavailable("postgres_away", "OSError"), "Postgres at db.example:5433/m? (DATABASE_URL"),
        (Unavailable("litellm_db", "OSError"), "llm.example/l? (LITELLM_DATABASE_URL)"),
    ],
)
def test_the_address_and_its_setting_are_named(error: MeterbridgeError, told: str) -> None:
    sentence = sentence_of(error)
    assert told in sentence
    assert sentence.startswith(str(error))
    assert "hush" not in sentence


def test_what_is_no_neighbours_fault_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sentence_of(Unavailable("log_behind", "the meter has 1 records to go")).endswith("records to go")
    monkeypatch.setenv("KAFKA_PARTITIONS", "many")
    assert sentence_of(Unavailable("kafka_unavailable")) == "kafka_unavailable"
