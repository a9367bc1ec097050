"""The answer to a mapping says if Lago has no such customer. The mapping is stored all the same."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from connectors.api.mapping_models import mapping_shown
from connectors.billing.mappings import MappingResult, Mappings
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

    async def is_unknown(self, _org_id: str) -> bool:
        self.asked += 1
        return self._is_unknown

    def refused(self, _org_id: str) -> str:
        return ""

    def mapped(self, _version: object) -> None:
        """Nothing is subscribed."""


async def _mapped(lago: Lago, *, ask_lago: bool = True) -> MappingResult:
    async def wait_fresh(_since: float) -> None:
        """The table is fresh."""

    async def change(_key: str, make: Any, announce: Any) -> Any:
        after = make(None)
        await announce(None, after)
        return after

    view = SimpleNamespace(table={}, wait_fresh=wait_fresh)
    parts = cast("Any", (view, view, SimpleNamespace(change=change), lago))
    mappings = Mappings(*parts, mapping_delay_us=SECOND_US, keep_us=KEEP_US, now_us=lambda: NOW)
    return await mappings.put(MappingRequest("c", "acme-incc", "tenant"), ask_lago=ask_lago)


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
