"""The answer to a mapping request after a process with a faster clock has just changed the same mapping."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from connectors.billing.mappings import Mappings
from schemas.customers import CustomerRecord
from schemas.moments import HOUR_US, SECOND_US
from streams.core.mapping.set_mapping import KEEP_US, EndMappingRequest, MappingRequest, in_force, set_mapping

NOW = 1_800_000_000 * SECOND_US
LEAD = 5 * SECOND_US
Known = CustomerRecord | None


class World:
    """One process's mappings, with its tables and topic in memory."""

    def __init__(self, now_us: int, *records: CustomerRecord) -> None:
        self.table = {record.litellm_customer_id: record for record in records}
        view = SimpleNamespace(table=self.table, wait_fresh=self.wait_fresh)
        orgs = SimpleNamespace(table={}, wait_fresh=self.wait_fresh)
        quiet = SimpleNamespace(
            knows=lambda *_: True, mapped=lambda _: None, refused=lambda _: "", is_unknown=self.is_unknown
        )
        parts = cast(Any, (view, orgs, self, quiet))
        self.mappings = Mappings(*parts, mapping_delay_us=LEAD, keep_us=KEEP_US, now_us=lambda: now_us)

    async def wait_fresh(self, _since: float) -> None:
        """Return at once: the table is fresh."""

    async def is_unknown(self, _org_id: str) -> bool:
        """Lago knows every org."""
        return False

    async def change(self, key: str, make: Any, announce: Any) -> Known:
        before = self.table.get(key)
        after: CustomerRecord = make(before)
        await announce(before, after)
        self.table[key] = after
        return after


@pytest.mark.parametrize("behind", [0, 3 * SECOND_US, HOUR_US])
async def test_the_answer_shows_the_requested_mapping_although_it_starts_by_the_faster_clock(behind: int) -> None:
    first = set_mapping(None, MappingRequest("c", "a", "t"), NOW - 9 * HOUR_US, LEAD)
    world = World(NOW - behind, set_mapping(first, MappingRequest("c", "b", "t"), NOW, LEAD))
    created = await world.mappings.put(MappingRequest("c", "d", "t"))
    assert (created.version.lago_customer_id, created.changed) == ("d", True)
    assert created.version.effective_from == NOW + LEAD
    assert in_force(world.table["c"].versions, NOW + 99 * HOUR_US).lago_customer_id == "d"
    ended = await world.mappings.end("c", EndMappingRequest())
    assert ended is not None
    assert (ended.version.is_active, ended.version.effective_from) == (False, NOW + LEAD)
