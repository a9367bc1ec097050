"""The answer to a mapping says if Lago has no such customer. The mapping is stored all the same."""

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from connectors.api.mapping_models import mapping_shown
from connectors.billing.mappings import UNKNOWN_ORG, MappingResult, Mappings
from connectors.operations.import_kinds import MappingRows
from connectors.operations.imports import Import, Imported
from connectors.operations.row_files import Row
from schemas.moments import SECOND_US
from streams.core.mapping.set_mapping import KEEP_US, MappingRequest

NOW = 1_800_000_000 * SECOND_US


class Lago:
    """What the discovery says, and how often Lago was asked for the customer."""

    def __init__(self, *, knows: bool, answers: bool, is_unknown: bool) -> None:
        self._knows, self._answers, self._is_unknown = knows, answers, is_unknown
        self.asked = 0

    def knows(self, _org_id: str, _subscription: str) -> bool:
        return self._knows

    async def learn(self, _org_id: str, _names: object) -> bool:
        return self._answers

    async def is_unknown(self, org_id: str) -> bool | None:
        self.asked += 1
        return None if org_id == "silence" else self._is_unknown and org_id != "acme-inc"

    def refused(self, _org_id: str) -> str:
        return ""

    def mapped(self, _version: object) -> None:
        """Nothing is subscribed."""


def _mappings(lago: Lago) -> Mappings:
    async def wait_fresh(_since: float) -> None:
        """The table is fresh."""

    async def change(_key: str, make: Any, announce: Any) -> Any:
        after = make(None)
        await announce(None, after)
        return after

    view = SimpleNamespace(table={}, wait_fresh=wait_fresh)
    parts = cast("Any", (view, view, SimpleNamespace(change=change), lago))
    return Mappings(*parts, mapping_delay_us=SECOND_US, keep_us=KEEP_US, now_us=lambda: NOW)


async def _mapped(lago: Lago, *, ask_lago: bool = True) -> MappingResult:
    return await _mappings(lago).put(MappingRequest("c", "acme-incc", "tenant"), ask_lago=ask_lago)


def _warning(mapped: MappingResult) -> str | None:
    shown: str | None = mapping_shown(mapped, lambda _: True)["warning"]
    return shown


@pytest.mark.parametrize(
    ("knows", "answers", "is_unknown", "warns"),
    [(False, True, True, True), (False, True, False, False), (False, False, True, False), (True, True, True, False)],
    ids=["lago-has-none", "lago-has-one", "lago-is-away", "known-here"],
)
async def test_a_mapping_to_an_org_that_lago_lacks_is_stored_with_a_warning(
    *, knows: bool, answers: bool, is_unknown: bool, warns: bool
) -> None:
    lago = Lago(knows=knows, answers=answers, is_unknown=is_unknown)
    mapped = await _mapped(lago)
    assert (mapped.created, mapped.target.held) == (True, "no_subscription")
    warning = _warning(mapped)
    assert (warning or "").startswith("Lago has no customer with this `lago_customer_id`") is warns
    assert lago.asked == int(answers and not knows), "a silent Lago must not be waited for a second time"


async def test_a_row_of_an_import_asks_lago_nothing() -> None:
    lago = Lago(knows=False, answers=True, is_unknown=True)
    assert _warning(await _mapped(lago, ask_lago=False)) is None and lago.asked == 0


async def _imported(lago: Lago, *orgs: str, dry_run: bool) -> Imported:
    async def rows() -> AsyncIterator[Row]:
        for number, org in enumerate(orgs):
            row = {"litellm_customer_id": f"c{number}", "lago_customer_id": org, "lago_organization_id": "tenant"}
            yield Row(number, json.dumps(row if org else {}).encode())

    return await Import(MappingRows(_mappings(lago), dry_run=dry_run), at_once=3).run(rows())


@pytest.mark.parametrize("dry_run", [True, False])
async def test_an_import_warns_of_the_orgs_that_lago_lacks_as_a_single_mapping_does(*, dry_run: bool) -> None:
    """Earlier only the answer to a single mapping said so: an import with a misspelt org held its usage."""
    lago = Lago(knows=False, answers=True, is_unknown=True)
    done = await _imported(lago, "acme-incc", "acme-inc", "acme-incc", "", "acme-inx", dry_run=dry_run)
    assert done.warnings == [("acme-incc", 2, UNKNOWN_ORG), ("acme-inx", 1, UNKNOWN_ORG)]
    assert (done.created, done.refused, lago.asked) == (4, 1, 3), "Lago is asked once for each org"
    assert done.as_object()["warnings"][0] == {"org_id": "acme-incc", "rows": 2, "warning": UNKNOWN_ORG}


async def test_an_import_asks_a_silent_lago_no_further_and_says_so() -> None:
    lago = Lago(knows=False, answers=True, is_unknown=True)
    orgs = ["typo", *["silence"] * 3, "acme-inc", *(f"o{number}" for number in range(9))]
    done = await _imported(lago, *orgs, dry_run=True)
    assert [(one.org_id, one.rows) for one in done.warnings] == [("o0", 1), ("typo", 1), (None, 0)]
    assert (done.warnings[-1].warning, lago.asked) == ("9 orgs were not looked up in Lago", 4)


async def test_the_orgs_that_an_import_looks_up_are_bounded() -> None:
    lago = Lago(knows=False, answers=True, is_unknown=False)
    unknown, unasked = await _mappings(lago).unknown_orgs([str(number) for number in range(1003)])
    assert (unknown, unasked, lago.asked) == ([], 3, 1000)
