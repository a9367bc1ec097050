"""A setting may be read from a file; an error names the variable, never a value."""

from pathlib import Path

import pytest

from connectors.config.settings import load_settings
from schemas.errors import ConfigurationError

SECRET = "lago-secret-0123456789"


def test_a_secret_is_read_from_the_named_file(tmp_path: Path) -> None:
    file = tmp_path / "lago_api_key"
    for content in (SECRET, SECRET + "\n", SECRET + "\r\n"):
        file.write_bytes(content.encode())
        key = load_settings({"LAGO_API_KEY_FILE": str(file)}).lago_api_key
        assert key is not None
        assert key.get_secret_value() == SECRET


def test_every_setting_may_be_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "partitions"
    file.write_text("3\n")
    settings = load_settings({"KAFKA_PARTITIONS_FILE": str(file), "WEBHOOK_TOKEN_FILE": ""})
    assert (settings.kafka_partitions, settings.unknown) == (3, ())


@pytest.mark.parametrize("case", ["absent", "a folder", "both", "no text", "endless"])
def test_an_error_about_a_file_does_not_repeat_its_content(tmp_path: Path, case: str) -> None:
    file = tmp_path / "key"
    environ = {"LAGO_API_KEY_FILE": str(file)}
    if case == "a folder":
        file.mkdir()
    elif case == "both":
        file.write_text(SECRET)
        environ["LAGO_API_KEY"] = SECRET
    elif case == "no text":
        file.write_bytes(b"\xff" + SECRET.encode())
    elif case == "endless":
        file.write_text(SECRET * 10_000)
    with pytest.raises(ConfigurationError) as refused:
        load_settings(environ)
    assert refused.value.reason.startswith("LAGO_API_KEY")
    assert SECRET not in str(refused.value.detail)


def test_a_malformed_value_in_a_file_is_refused_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "partitions"
    file.write_text("many")
    with pytest.raises(ConfigurationError, match="KAFKA_PARTITIONS"):
        load_settings({"KAFKA_PARTITIONS_FILE": str(file)})
