"""The message about a malformed setting says what is expected, with an example, and does not repeat the value."""

import pytest

from connectors.config.settings import load_settings
from schemas.errors import ConfigurationError


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("WINDOW_SECONDS", "must be a whole number, for example 60"),
        ("MAX_BODY_BYTES", "must be a number of bytes, for example 67108864 or 64MiB"),
        ("PORT", "must be a whole number, for example 8080"),
        ("GRACE_SECONDS", "must be a number, for example 5"),
        ("MAX_USD_PER_CALL", "must be a number, for example 1000"),
        ("AUTO_SUBSCRIBE", "must be 1 or 0"),
        ("LAGO_EVENT_CODE", "must have at most 255 characters"),
        (
            "TOPIC_PREFIX",
            "must be made of letters, digits, dots, underscores and hyphens, and a name begins with a letter or a digit",
        ),
        ("LAGO_API_URL", "must be an address such as http://host:3000"),
        ("LOG_LEVEL", "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ],
)
def test_the_message_says_what_is_expected(variable: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as result:
        load_settings({variable: "sk/secret" * (40 if variable == "LAGO_EVENT_CODE" else 1)})
    assert result.value.detail == f"{variable} {sentence}"


def test_an_unknown_unit_and_a_fraction_get_the_same_form_of_message() -> None:
    with pytest.raises(ConfigurationError, match="MAX_BODY_BYTES must be a number of bytes"):
        load_settings({"MAX_BODY_BYTES": "5xb"})
    with pytest.raises(ConfigurationError, match="WINDOW_SECONDS must be a whole number"):
        load_settings({"WINDOW_SECONDS": "1.5"})
