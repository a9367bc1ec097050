"""docs/configuration.md is what the settings say."""

from pathlib import Path

from connectors.config.configuration_page import configuration_page
from connectors.config.settings import PARTS, VARIABLES, Settings


def test_the_page_about_configuration_is_current() -> None:
    """`python -m connectors.config.configuration_page > docs/configuration.md` writes it."""
    page = Path(__file__).parents[3] / "docs" / "configuration.md"
    assert page.read_text() == configuration_page()


def test_every_variable_is_explained() -> None:
    page = configuration_page()
    for variable, name in VARIABLES.items():
        assert f"| `{variable}` |" in page
        assert Settings.model_fields[name].description


def test_every_variable_is_in_the_class_of_its_subject() -> None:
    """`Settings` only composes, and a class that it has as a base has its section of the page."""
    assert set(Settings.__annotations__) - {"model_config"} == {"unknown"}
    assert tuple(PARTS.values()) == Settings.__bases__
    assert set(VARIABLES.values()) == Settings.model_fields.keys() - {"unknown"}
