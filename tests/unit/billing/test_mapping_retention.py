"""The record of a deleted mapping is removed after a month, except where mapping by identity would map the customer
again.
"""

from collections.abc import Iterable
from typing import Any, cast

import msgspec
import pytest

from connectors.billing.mapping_retention import ASKED, FORGET_US, MappingRetention
from connectors.lago.errors import LagoRejected, LagoUnavailable
from connectors.lago.responses import Customer
from schemas.customers import CustomerRecord
from schemas.moments import HOUR_US, SECOND_US
from streams.core.mapping.set_mapping import EndMappingRequest, MappingRequest, end_mapping, set_mapping

NOW = 1_800_000_000 * SECOND_US
LEAD = 5 * SECOND_US
LONG_AGO = NOW - FORGET_US - HOUR_US


def deleted(name: str, at_us: int = LONG_AGO, *, gone: bool = True) -> CustomerRecord:
    mapped = set_mapping(None, MappingRequest(name, "org", "t"), at_us - HOUR_US, LEAD)
    return end_mapping(mapped, EndMappingRequest(deleted=gone), at_us, LEAD)


class World:
    """The topic in memory, and a Lago that has some customers."""

    def __init__(self, *records: CustomerRecord, lagos: Iterable[str] = ()) -> None:
        self.table = {record.litellm_customer_id: record for record in records}
        self.lagos = set(lagos)
        self.errors: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.forgetting = MappingRetention(self.table, cast(Any, self), self.customer, lambda: NOW, self.sleep)

    async def customer(self, name: str) -> Customer | None:
        self.asked.append(name)
        if name in self.errors:
            raise self.errors[name]
        return msgspec.convert({"external_id": name}, Customer) if name in self.lagos else None

    async def change(self, key: str, make: Any) -> None:
        after = make(self.table.get(key))
        assert after is None or after is self.table[key]
        if after is None:
            self.table.pop(key, None)

    async def sleep(self, _seconds: float) -> None:
        """Returns at once."""


async def test_the_record_is_removed_a_month_after_the_deletion_and_not_earlier() -> None:
    young, ended = deleted("young", NOW - FORGET_US), deleted("ended", gone=False)
    world = World(deleted("old"), young, ended)
    await world.forgetting.look()
    assert (sorted(world.table), world.asked) == (["ended", "young"], ["old"])


async def test_the_record_stays_as_long_as_lago_has_a_customer_with_the_id() -> None:
    """Otherwise `MAP_BY_IDENTITY` would ask Lago for the id, find the customer, and undo a person's decision."""
    world = World(deleted("acme"), deleted("person@example.com"), lagos=["acme"])
    for _ in range(3):
        await world.forgetting.look()
    assert list(world.table) == ["acme"]
    world.lagos.clear()
    await world.forgetting.look()
    assert not world.table, "nor does it stay when it is gone from Lago"


@pytest.mark.parametrize("error", [LagoUnavailable("connect"), LagoRejected("unauthorized")])
async def test_a_record_that_lago_does_not_answer_about_stays_and_delays_others_only_briefly(error: Exception) -> None:
    world = World(deleted("a"), deleted("b"))
    world.errors = {"a": error}
    with pytest.raises(type(error)):
        await world.forgetting.look()
    assert list(world.table) == ["a", "b"]
    with pytest.raises(type(error)):
        await world.forgetting.look()
    assert list(world.table) == ["a"]


async def test_the_record_of_an_id_that_lago_cannot_store_is_removed() -> None:
    world = World(deleted("a/../b"))
    world.errors = {"a/../b": LagoRejected("unsafe_id")}
    await world.forgetting.look()
    assert not world.table


async def test_records_that_stay_do_not_delay_the_others() -> None:
    kept = [f"a{number:04}" for number in range(ASKED)]
    world = World(*map(deleted, kept), deleted("z"), lagos=kept)
    await world.forgetting.look()
    assert (len(world.asked), len(world.table)) == (ASKED, ASKED + 1)
    await world.forgetting.look()
    assert "z" not in world.table


async def test_the_record_of_a_customer_that_was_mapped_again_stays() -> None:
    world = World(deleted("acme"))

    async def customer(name: str) -> None:
        world.table[name] = set_mapping(world.table[name], MappingRequest(name, "b", "t"), NOW, LEAD)

    await MappingRetention(world.table, cast(Any, world), customer, lambda: NOW, world.sleep).look()
    assert len(world.table["acme"].versions) == 3
