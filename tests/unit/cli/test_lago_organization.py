"""`meterbridge lago setup --organization`."""

import json

import pytest
import typer

from connectors.cli.account_tables import lago_client
from connectors.config.settings import load_settings

SETTINGS = {"LAGO_API_KEY": "own", "LAGO_ORGANIZATIONS": json.dumps([{"id": "eu", "url": "http://eu", "key": "k"}])}


async def test_setup_uses_the_named_organisation() -> None:
    settings = load_settings(SETTINGS)
    async with lago_client(settings) as own, lago_client(settings, "eu") as eu:
        assert (own.root, eu.root) == ("http://localhost:3000", "http://eu")
        assert eu.named("acme") == "eu::acme"


async def test_an_organisation_that_is_not_configured_is_refused() -> None:
    with pytest.raises(typer.Exit) as ended:
        async with lago_client(load_settings(SETTINGS), "us"):
            pass
    assert ended.value.exit_code == 2
