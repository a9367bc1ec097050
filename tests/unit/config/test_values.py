"""Modules below the composition and the commands take plain values: they unwrap no secret, and no `repr` shows one.

That nothing there imports the settings is a contract of import-linter (pyproject.toml).
"""

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.config.connections import (
    deployment_of,
    kafka_connection,
    lago_of_environment,
    postgres_url,
    usage_kafka_of_environment,
)
from connectors.config.settings import load_settings

ROOT = Path(__file__).parents[3]
#: The module that makes values of the settings, and the settings themselves.
UNWRAPS = {
    f"connectors/config/{name}.py"
    for name in ("connections", "kafka_settings", "outgoing_webhook_settings", "postgres_settings", "types")
}
SECRET = "hushed-secret"
ENVIRON = {
    "KAFKA_BOOTSTRAP_SERVERS": "a:9092",
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_USERNAME": "meter",
    "KAFKA_SASL_PASSWORD": SECRET,
    "LAGO_API_KEY": SECRET,
    "DATABASE_URL": f"postgresql://writer:{SECRET}@db:6543/usage?password={SECRET}",
    "TOPIC_PREFIX": "acme.",
    "DEPLOYMENT_NAME": "eu-1",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the product, by its path."""
    for folder in ("schemas", "streams", "connectors"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_secrets_are_unwrapped_in_one_place() -> None:
    found = {
        path
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "get_secret_value"
    }
    assert found == UNWRAPS


def test_no_repr_of_a_value_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(ENVIRON)
    kafka, url, lago = kafka_connection(settings), postgres_url(settings), lago_of_environment()
    assert (kafka.sasl_password, lago.key, url) == (SECRET, SECRET, ENVIRON["DATABASE_URL"])
    assert repr(url) == "DatabaseUrl('db:6543')"
    for created in (kafka, url, lago, deployment_of(settings), usage_kafka_of_environment(), [url], replace(kafka)):
        assert SECRET not in repr(created)


def test_usage_of_another_program_goes_to_the_kafka_that_its_settings_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    assert usage_kafka_of_environment() is None
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    named = usage_kafka_of_environment()
    assert named is not None
    assert (named.connection.servers, named.layout.prefix, named.answer_within_s) == ("a:9092", "acme.", 30)


def test_consumer_groups_and_transactional_ids_begin_with_prefix_and_deployment() -> None:
    deployment = deployment_of(load_settings(ENVIRON))
    assert (deployment.name, deployment.kafka_id("desk")) == ("eu-1", "acme.eu-1-desk")
    assert deployment.topics.raw == "acme.litellm.usage.raw"
