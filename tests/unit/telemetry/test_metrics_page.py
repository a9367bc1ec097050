"""docs/metrics.md has every metric of the code and no other, each with a sentence that says when to worry."""

from pathlib import Path

import pytest

from connectors.telemetry import metrics_page
from connectors.telemetry.metric_definitions import Definition
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.metrics_page import CHAPTERS
from tests.unit.repository.test_metric_rows import exported

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_about_metrics_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == metrics_page.metrics_page()


def test_the_page_has_every_metric_once_and_says_which_values_are_bad() -> None:
    guided = [name for guide in CHAPTERS.values() for name in guide]
    assert sorted(guided) == sorted(exported())
    assert all(sentence.endswith((".", "**")) for guide in CHAPTERS.values() for sentence in guide.values())


def test_a_metric_without_a_place_or_a_place_without_a_metric_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    chapter = "Postgres"
    without = {**CHAPTERS, chapter: {}}
    monkeypatch.setattr(metrics_page, "CHAPTERS", without)
    with pytest.raises(KeyError, match="meterbridge_projector_lag_seconds"):
        metrics_page.metrics_page()
    monkeypatch.setattr(metrics_page, "CHAPTERS", {**CHAPTERS, chapter: {"meterbridge_gone": "Never."}})
    with pytest.raises(KeyError, match="meterbridge_gone"):
        metrics_page.metrics_page()


def test_every_metric_is_in_the_class_of_its_subject() -> None:
    """`Metrics` only composes these classes."""
    assert [name for name, value in vars(Metrics).items() if isinstance(value, Definition)] == []
    assert {part.__module__.endswith("_metrics") for part in Metrics.__bases__} == {True}
    assert len({part.__module__ for part in Metrics.__bases__}) == len(Metrics.__bases__)
