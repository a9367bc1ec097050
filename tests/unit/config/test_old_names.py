"""A setting under its old name stops the start and the message gives the new name; the setting is never ignored."""

import pytest
from typer.testing import CliRunner

from connectors.cli.main import app
from connectors.config import old_names, settings
from connectors.config.old_names import RENAMED, check_renamed
from connectors.config.settings import VARIABLES, load_settings
from schemas.errors import ConfigurationError

OLD = {"OLD_PORT": "PORT", "OLD_KEY": "LAGO_API_KEY"}


def test_an_old_name_is_refused_and_the_new_name_given() -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_renamed({"OLD_PORT": "8081", "PORT": "8082"}, OLD)
    assert (refused.value.reason, refused.value.detail) == ("OLD_PORT", "OLD_PORT is now called PORT")


def test_several_old_names_are_reported_together_without_values() -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_renamed({"OLD_PORT": "8081", "OLD_KEY_FILE": "/run/hidden"}, OLD)
    assert refused.value.reason == "OLD_PORT, OLD_KEY_FILE"
    assert refused.value.detail == "OLD_PORT is now called PORT; OLD_KEY_FILE is now called LAGO_API_KEY_FILE"


def test_an_old_name_with_an_empty_value_counts_as_unset() -> None:
    check_renamed({"OLD_PORT": "", "OLD_KEY": " ", "PORT": "1"}, OLD)


@pytest.mark.parametrize("command", [["doctor", "--no-lago"], ["explain", "e-1"]])
def test_the_doctor_and_the_commands_end_with_that_message(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "check_renamed", lambda environ: old_names.check_renamed(environ, OLD))
    ended = CliRunner().invoke(app, command, env={"OLD_PORT": "8081"})
    assert ended.exit_code == 2
    assert "OLD_PORT is now called PORT" in ended.output


def test_every_new_name_is_a_setting_and_no_old_one_is() -> None:
    assert set(RENAMED.values()) <= set(VARIABLES)
    assert not set(RENAMED) & set(VARIABLES)
    for old, new in RENAMED.items():
        with pytest.raises(ConfigurationError, match=f"{old} is now called {new}$"):
            load_settings({old: "1"})
