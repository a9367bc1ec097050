"""Lago organisations from the settings as connections, and a key that is reread from its file."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from connectors.config.connections import lago_connections
from connectors.config.lago_connections import KeyFile
from connectors.config.settings import load_settings
from schemas.errors import ConfigurationError


def listed(*organizations: Mapping[str, object]) -> str:
    return json.dumps(list(organizations))


def test_each_organisation_has_its_own_limits(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("eus-key\n")
    text = """
organizations:
  - {id: eu, url: "http://eu:3000/", key_file: %s, webhook_secret: "one,two", requests_per_second: 5, concurrency: 2}
  - {id: us, url: "https://us", key: us-key, clickhouse_dedup: true}
"""
    (tmp_path / "lagos.yml").write_text(text % (tmp_path / "key"))
    settings = load_settings({"LAGO_API_KEY": "own", "LAGO_ORGANIZATIONS_FILE": str(tmp_path / "lagos.yml")})
    default, eu, us = lago_connections(settings)
    assert (default.organization, default.key(), default.label, default.concurrency) == ("", "own", "default", 4)
    assert (eu.url, eu.key(), eu.webhook_secrets, eu.per_second) == ("http://eu:3000", "eus-key", ("one", "two"), 5)
    assert (eu.concurrency, eu.clickhouse_dedup, eu.label) == (2, False, "eu")
    assert (us.key(), us.clickhouse_dedup, us.per_second, us.concurrency) == ("us-key", True, 0, 4)
    assert settings.meter_policy().organizations == ("eu", "us")
    assert "us-key" not in repr(settings) + repr(us) and "one" not in repr(eu)


def test_a_closed_organisation_is_neither_asked_nor_metered_and_needs_no_key() -> None:
    given = listed({"id": "eu", "closed": True}, {"id": "us", "url": "https://us", "key": "k"})
    settings = load_settings({"LAGO_API_KEY": "own", "LAGO_ORGANIZATIONS": given})
    assert [one.organization for one in lago_connections(settings)] == ["", "us"]
    assert settings.meter_policy().organizations == ("us",)
    assert settings.closed_organizations == ("eu",)


@pytest.mark.parametrize("wrong", [{"id": "eu", "key": "k"}, {"id": "eu", "url": "https://eu"}])
def test_an_open_organisation_without_an_address_or_a_key_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="needs"):
        load_settings({"LAGO_ORGANIZATIONS": listed(wrong)})


def test_without_the_setting_only_the_default_organisation_exists() -> None:
    settings = load_settings({"LAGO_API_KEY": "own"})
    assert [one.organization for one in lago_connections(settings)] == [""]
    assert settings.meter_policy().organizations == ()


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ("[{", "must be a list in JSON or YAML, it cannot be read at line 1, column 3; for example [{"),
        ("[1]", "must be a list of organisations: entry 1: "),
    ],
)
def test_a_list_that_cannot_be_read_names_the_place_and_an_example(wrong: str, place: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings({"LAGO_ORGANIZATIONS": wrong})
    assert place in refused.value.detail
    assert refused.value.detail.endswith('"key_file": "/run/secrets/lago-eu"}]')


def test_no_error_message_contains_a_key() -> None:
    wrong = listed({"id": "e u", "url": "http://x", "key": "very-secret"})
    with pytest.raises(ConfigurationError) as refused:
        load_settings({"LAGO_ORGANIZATIONS": wrong})
    assert "very-secret" not in refused.value.detail and "entry 1 id" in refused.value.detail


def test_one_webhook_secret_for_two_organisations_is_refused() -> None:
    one = {"id": "eu", "url": "http://x", "key": "k", "webhook_secret": "same"}
    settings = load_settings({"LAGO_WEBHOOK_SECRET": "same", "LAGO_ORGANIZATIONS": listed(one)})
    with pytest.raises(ConfigurationError, match="webhook_secret"):
        lago_connections(settings)


def test_a_key_is_reread_from_its_file_and_kept_if_the_file_is_deleted(tmp_path: Path) -> None:
    now = 0.0
    path = tmp_path / "key"
    key = KeyFile(path, "eu", lambda: now)
    assert key() == ""
    path.write_text("old\n")
    assert key() == "", "looked at once a second"
    now = 1.0
    assert key() == "old"
    path.write_text("new")
    now = 2.0
    assert key() == "new"
    path.unlink()
    now = 3.0
    assert key() == "new"
    path.write_text("")
    now = 4.0
    assert key() == "new"
