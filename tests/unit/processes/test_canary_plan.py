"""The variables of the canary, and what its process does with them."""

from decimal import Decimal

import pytest
from typer.testing import CliRunner

from connectors.cli.main import app
from connectors.config.settings import load_settings
from connectors.processes.canary import canary_of, plan_of
from connectors.processes.container_health import Probe, probes
from schemas.errors import ConfigurationError


def test_each_variable_changes_what_the_canary_does() -> None:
    default = plan_of(load_settings({}))
    assert (default.name, default.interval_us, default.owed_usd) == (
        "meterbridge-canary",
        60_000_000,
        Decimal("0.0001"),
    )
    assert (default.window_us, default.grace_us, default.within_us) == (60_000_000, 5_000_000, 120_000_000)
    given = {
        "CANARY_INTERVAL": "300",
        "CANARY_COST_USD": "0.002",
        "CANARY_BILLED_WITHIN": "7.5",
        "DEPLOYMENT_NAME": "eu",
    }
    plan = plan_of(load_settings(given))
    assert (plan.name, plan.interval_us, plan.within_us, plan.owed_usd) == (
        "eu-canary",
        300_000_000,
        7_500_000,
        Decimal("0.002"),
    )
    assert plan_of(load_settings({**given, "CANARY_BILLED_USD": "0.003"})).owed_usd == Decimal("0.003")


@pytest.mark.parametrize("words", [["canary"], ["canary", "--once"], ["canary", "setup"]], ids=" ".join)
def test_an_interval_shorter_than_a_window_gives_an_error_of_one_sentence(words: list[str]) -> None:
    result = CliRunner().invoke(app, words, env={"WINDOW_SECONDS": "3600", "LAGO_API_KEY": "key"})
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(
        "meterbridge: CANARY_INTERVAL should be a multiple of WINDOW_SECONDS (3600)"
    )


async def test_without_a_key_of_lago_no_call_is_posted() -> None:
    with pytest.raises(ConfigurationError, match="LAGO_API_KEY is not set"):
        async with canary_of(load_settings({})):
            pass


def test_the_canarys_container_has_a_health_check_and_the_setup_container_has_none() -> None:
    assert probes(["python", "meterbridge", "canary"], {"METRICS_PORT": "9"}) == [Probe(9, "/health/ready")]
    assert probes(["python", "meterbridge", "canary", "setup"], {}) == []
