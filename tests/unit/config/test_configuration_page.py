"""docs/configuration.md agrees with the settings in the code."""

import re
from pathlib import Path

import pytest

from connectors.config import configuration_page as page_module
from connectors.config.configuration_page import NOTES, configuration_page
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


def test_every_row_is_below_a_heading_and_a_table_header() -> None:
    before, *chapters = configuration_page().split("\n## ")
    assert "\n| `" not in before
    for chapter in chapters:
        rows = [line for line in chapter.splitlines() if line.startswith("|")]
        assert rows[1].startswith("|---|") and len(rows) > 2, chapter


def test_a_setting_outside_every_chapter_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "VARIABLES", {name: of for name, of in VARIABLES.items() if of != "host"})
    with pytest.raises(ValueError, match="no chapter has host"):
        configuration_page()


def test_the_first_table_has_the_settings_of_a_production_installation() -> None:
    first = configuration_page().split("\n## ")[1]
    assert first.startswith("A production installation sets these")
    assert [name.lower() for name in re.findall(r"^\| `([A-Z_]+)` \|", first, re.MULTILINE)] == list(NOTES.production)
    assert set(NOTES.production) <= set(VARIABLES.values())
    assert set(NOTES.production) >= NOTES.required


def test_an_empty_default_says_whether_a_value_is_required() -> None:
    page = configuration_page()
    for part in PARTS.values():
        for name, field in part.model_fields.items():
            marked = re.search(rf"^\| `{name.upper()}` \| \*(required|off|optional)\* \|", page, re.MULTILINE)
            assert bool(marked) == (field.default in (None, (), "")), name
    for name in NOTES.required | NOTES.off:
        assert Settings.model_fields[name].default in (None, (), ""), name
