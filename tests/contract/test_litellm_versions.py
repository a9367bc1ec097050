"""Payloads of LiteLLM's versions, recorded by `make litellm-matrix`: the current ingress and meter bill them as
recorded, and the page and the doctor's table agree. A change in LiteLLM's reports is noticed.
"""

import copy
from typing import Any

import pytest

from connectors.litellm.known_versions import known_of, newest, tried
from tests.litellm_matrix.entrance import replayed
from tests.litellm_matrix.judge import billed_cents, plain, rows_of
from tests.litellm_matrix.page import PAGE, TABLE, page, table
from tests.litellm_matrix.planted import PLANTS, SEEN_IN
from tests.litellm_matrix.results import (
    compared,
    differences_of_calls,
    recorded,
    recorded_calls,
    versions,
)
from tests.litellm_matrix.scenario import SCENARIOS
from tests.litellm_matrix.versions import VERSIONS

#: Scenarios of a plan of forty; more came.
FORTY = 40


async def replay(version: str, change: Any = None) -> dict[str, list[dict[str, Any]]]:
    """The rows of a version's recorded calls, after a change of each."""
    posted, received_us = recorded_calls(version)
    rows: dict[str, list[dict[str, Any]]] = {}
    for endpoint in dict.fromkeys(each["at"] for each in posted):
        calls = [copy.deepcopy(each["call"]) for each in posted if each["at"] == endpoint]
        for call in calls:
            if change is not None and isinstance(call, dict):
                change(call)
        found = rows_of(await replayed(calls, received_us))
        rows |= {name: found[name] for name in found if SCENARIOS[name].endpoint == endpoint}
    return rows


def test_the_compared_versions_are_recorded_with_at_least_forty_scenarios() -> None:
    assert tuple(versions()) == VERSIONS == tuple(tried())
    for version in VERSIONS:
        assert set(recorded(version)) <= set(SCENARIOS)
        assert len(recorded(version)) >= FORTY


@pytest.mark.parametrize("version", VERSIONS)
async def test_recorded_payloads_are_billed_as_recorded(version: str) -> None:
    rows = await replay(version)
    for name, result in recorded(version).items():
        found = rows.get(name, [])
        assert differences_of_calls(result["calls"], found) == [], name
        assert plain(billed_cents(found)) == result["billed"], name


@pytest.mark.parametrize("plant", PLANTS)
async def test_a_change_in_litellms_reports_is_noticed(plant: str) -> None:
    was = recorded(VERSIONS[-1])
    rows = await replay(VERSIONS[-1], PLANTS[plant])
    now = {
        name: {**result, "calls": rows.get(name, []), "billed": plain(billed_cents(rows.get(name, [])))}
        for name, result in was.items()
    }
    assert SEEN_IN[plant] in compared(was, now)


def test_the_page_and_the_doctors_table_agree_with_the_recorded_results() -> None:
    assert PAGE.read_text() == page()
    assert TABLE.read_text() == table()


def test_a_version_is_found_by_itself_its_line_or_its_neighbours() -> None:
    first, second = VERSIONS[:2]
    assert known_of(newest()) is not None
    assert [
        (known.is_tried, known.like)
        for version in (first, "1.0.0", "1.999.1", "1.81.99", "1.84.0")
        if (known := known_of(version))
    ] == [
        (True, (first,)),
        (False, (first,)),
        (False, (newest(),)),
        (False, (first,)),
        (False, (first, second)),
    ]
    assert known_of("unknown") is None
