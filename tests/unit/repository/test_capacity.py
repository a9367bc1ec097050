"""docs/capacity.md: its figures are the recorded ones, and its arithmetic is consistent."""

import re
from dataclasses import astuple, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.capacity.curve import chart
from bench.capacity.figures import figures
from bench.capacity.model import EVENTS_A_POST, KEPT_DAYS, STEPS_A_SECOND, Demand, Figures, Plan, plan
from bench.capacity.page import IMAGES, PAGE, parts, pictures, with_parts
from bench.capacity.results import recorded
from connectors.config.settings import Settings
from schemas.topics import CATALOGUE, DAY_MS, TopicNames
from streams.app import _LINGER_S

SUBJECTS = {"held", "steps", "customers", "identities", "flow", "where"}
#: Results that need not grow with the rate: that of one process, which is one of more.
OF_ONE = {"restore_s"}
RATES = st.floats(min_value=0.1, max_value=1e7)
SIZES = st.floats(min_value=1.0, max_value=5e3)
TIMES = st.floats(min_value=0.1, max_value=1e3)
FIGURES = st.builds(
    Figures,
    *[TIMES] * 4,
    st.fixed_dictionaries(dict.fromkeys(("raw", "enriched", "changelog"), SIZES)),
    st.fixed_dictionaries(dict.fromkeys(("events", "receipts", "deliveries"), SIZES)),
    *[SIZES] * 4,
    *[TIMES] * 2,
    *[SIZES] * 2,
)


def test_the_page_has_the_recorded_figures() -> None:
    page = PAGE.read_text()
    assert with_parts(page, parts(recorded())) == page, "python -m bench.capacity --write"


def rows_of(text: str) -> dict[str, list[str]]:
    """Cells of tables by the first cell, bold or not; for several rows with the same first cell, the cells of all."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| "):
            first, *others = (cell.strip().strip("*") for cell in line.strip("|").split("|"))
            found.setdefault(first, []).extend(others)
    return found


def test_the_readme_has_the_figures_of_the_page() -> None:
    """Brokers, bytes in Kafka, growth of Postgres, and the cores of all four roles together."""
    readme = rows_of((PAGE.parents[1] / "README.md").read_text().partition("### What does it cost to run?")[2])
    page = rows_of(PAGE.read_text().partition("<!-- begin: figures -->")[0])
    for rate in ("10", "1,000"):
        _, cores, _, brokers, kept, grows = readme[rate]
        used = sum(float(cell.partition("(")[2].rstrip(")")) for cell in page[rate][:4])
        assert (brokers, kept, grows) == (page[rate][5], page[rate][12], f"{page[rate][13]} a month")
        assert used <= float(re.findall(r"[\d.]+", cores)[0]) + 0.005


def test_the_pictures_show_the_recorded_figures() -> None:
    created = pictures(recorded())
    assert {name: (IMAGES / name).read_text() for name in created} == created, "python -m bench.capacity --write"
    assert set(re.findall(r"images/([\w-]+\.svg)", PAGE.read_text())) == created.keys()


def test_every_part_of_the_page_was_measured() -> None:
    assert recorded().keys() == SUBJECTS
    assert all(recorded().values())


def test_a_figure_without_a_place_on_the_page_is_an_error() -> None:
    with pytest.raises(ValueError, match="no part other"):
        with_parts("<!-- begin: one -->\n<!-- end: one -->\n", {"other": ""})


@given(FIGURES, RATES, RATES)
def test_more_calls_never_need_fewer_resources(known: Figures, one: float, other: float) -> None:
    less, more = (plan(Demand(rate), known) for rate in sorted((one, other)))
    for field in fields(Plan):
        if field.name not in OF_ONE:
            assert grown(getattr(less, field.name), getattr(more, field.name)), field.name


def grown(before: object, after: object) -> bool:
    """Whether no number has decreased."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(before[name] <= after[name] for name in before)
    return before <= after  # type: ignore[operator]


@given(FIGURES, RATES)
def test_every_worker_has_a_partition_and_every_process_spare_time(known: Figures, rate: float) -> None:
    demand = Demand(rate)
    planned = plan(demand, known)
    assert planned.partitions % demand.initial_partitions == 0
    assert planned.partitions >= max(planned.processes[role] for role in ("meter", "sink", "project"))
    for role, used in planned.cores.items():
        assert used <= planned.processes[role] * demand.busy * 1.000001
        assert planned.processes[role] >= demand.least


@given(FIGURES, RATES)
def test_no_meter_holds_more_identities_than_its_limit(known: Figures, rate: float) -> None:
    demand = Demand(rate)
    planned = plan(demand, known)
    assert planned.identities * known.identity / planned.processes["meter"] <= demand.meter_memory * 1.000001


@given(FIGURES, RATES, st.integers(min_value=1, max_value=5))
def test_kafka_writes_and_keeps_each_byte_once_for_each_replica(known: Figures, rate: float, copies: int) -> None:
    single, several = (plan(Demand(rate, replication=number), known) for number in (1, copies))
    assert several.kafka_write_s == pytest.approx(copies * single.kafka_write_s)
    assert several.kafka_disk == pytest.approx(copies * single.kafka_disk)
    assert several.brokers >= copies


@given(FIGURES, RATES)
def test_a_shorter_dedupe_retention_needs_less_of_what_depends_on_it(known: Figures, rate: float) -> None:
    day, hour = (plan(Demand(rate, dedupe_hours=hours), known) for hours in (24, 1))
    assert hour.identities == pytest.approx(day.identities / 24)
    assert hour.steps <= day.steps
    assert hour.identity_memory < day.identity_memory
    assert hour.changelog < day.changelog


@given(FIGURES, RATES)
def test_there_are_no_more_steps_or_events_than_calls(known: Figures, rate: float) -> None:
    planned = plan(Demand(rate), known)
    assert planned.steps <= planned.identities
    assert planned.events_s <= planned.calls_s
    assert planned.posts_s * EVENTS_A_POST == pytest.approx(planned.events_s)


def test_the_calculation_is_deterministic() -> None:
    known = figures(recorded())
    assert plan(Demand(1234), known) == plan(replace(Demand(1), calls_s=1234), known)


def test_the_figures_of_the_calculation_are_positive() -> None:
    assert all(
        value > 0
        for figure in astuple(figures(recorded()))
        for value in (figure.values() if isinstance(figure, dict) else (figure,))
    )


def test_the_calculation_uses_the_products_own_constants() -> None:
    assert STEPS_A_SECOND * _LINGER_S == 1
    assert Settings.model_fields["batch_size"].default == EVENTS_A_POST
    assert Settings.model_fields["dedupe_retention_hours"].default == Demand(1).dedupe_hours
    assert Settings.model_fields["kafka_partitions"].default == Demand(1).initial_partitions
    topics = {field.name: topic for field, topic in zip(fields(TopicNames), CATALOGUE, strict=True)}
    assert {name: int(topics[name].config["retention.ms"]) // DAY_MS for name in KEPT_DAYS} == KEPT_DAYS


def test_a_chart_has_every_point_inside_its_axes_and_names_every_line() -> None:
    lines = {"a & b": [(1.0, 5.0), (1_000_000.0, 870.0)], "c": [(10.0, 0.0)]}
    svg = chart("Title", "across", "up", lines)
    places = [tuple(map(float, found)) for found in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]
    assert len(places) == 3
    assert all(70 <= x <= 530 and 40 <= y <= 270 for x, y in places)
    assert places[1] == (530.0, pytest.approx(40 + 230 * (1 - 870 / 1000), abs=0.1))
    assert "a &amp; b" in svg
    assert all(f">{name}<" in svg for name in ("Title", "across", "up", "c", "1M"))


def test_a_chart_without_data_is_an_error() -> None:
    with pytest.raises(ValueError, match="no points"):
        chart("Title", "across", "up", {"none": []})
