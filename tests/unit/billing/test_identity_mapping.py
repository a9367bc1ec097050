"""Mapping by identity (`MAP_BY_IDENTITY`): which ids Lago is asked about, how often, and what happens while Lago is
unavailable.
"""

from collections.abc import Iterable

import msgspec
import pytest

from connectors.billing.identity_mapping import Announce, IdentityMapper, identity_of
from connectors.billing.mappings import MappingResult
from connectors.lago.errors import LagoRejected, LagoUnavailable
from connectors.lago.responses import Customer
from schemas.customer_id import UNATTRIBUTED
from schemas.reasons import CUSTOMER, LOOKUP_FAILED, NO_CUSTOMER

KNOWN = msgspec.convert({"external_id": "acme"}, Customer)


class World:
    """Lago's customers, the held customers, and the mappings that were made."""

    def __init__(self, held: Iterable[str]) -> None:
        self.held = list(held)
        self.asked: list[str] = []
        self.written: list[str] = []
        self.outcomes: list[str] = []
        self.now = 0.0
        self.error: Exception | None = None
        self.mapper = IdentityMapper(lambda: self.held, self.customer, self, self.outcomes.append, lambda: self.now)

    async def customer(self, external_id: str) -> Customer | None:
        self.asked.append(external_id)
        if self.error is not None:
            raise self.error
        return KNOWN if external_id == "acme" else None

    async def of(self, external_id: str) -> MappingResult | None:
        raise AssertionError(external_id)

    async def write(self, external_id: str, plan: str, announce: Announce) -> MappingResult | None:
        self.written.append(external_id)
        return None


async def test_lagos_customers_are_mapped_and_other_ids_are_not() -> None:
    world = World(["stranger", "acme", UNATTRIBUTED])
    await world.mapper.look()
    assert world.written == ["acme"]
    assert world.asked == ["stranger", "acme"], "Lago is not asked for a customer with that name"
    assert sorted(world.outcomes) == sorted([CUSTOMER, NO_CUSTOMER, NO_CUSTOMER])


async def test_lago_is_asked_about_an_unknown_customer_less_and_less_often_but_never_stops() -> None:
    """After half a minute, then twice as long each time, at most a quarter of an hour: a customer that is added to Lago
    later is found.
    """
    world = World(["stranger"])
    asked_at = []
    for second in range(0, 5000, 2):
        world.now = float(second)
        before = len(world.asked)
        await world.mapper.look()
        asked_at += [second] if len(world.asked) > before else []
    assert asked_at[:6] == [0, 30, 90, 210, 450, 930]
    assert asked_at[6:] == [1830, 2730, 3630, 4530]


async def test_a_flood_of_unknown_ids_causes_a_bounded_number_of_requests_a_round() -> None:
    world = World(f"name-{number}" for number in range(1000))
    await world.mapper.look()
    assert len(world.asked) == 50
    for _ in range(19):
        await world.mapper.look()
    assert sorted(world.asked) == sorted(world.held), "everybody had a turn"


async def test_while_lago_is_unavailable_it_gets_few_requests_and_no_id_counts_as_unknown() -> None:
    world = World(f"name-{number}" for number in range(1000))
    world.error = LagoUnavailable("connect")
    await world.mapper.look()
    assert (len(world.asked), set(world.outcomes)) == (4, {LOOKUP_FAILED})
    world.error = None
    world.held = ["acme"]
    await world.mapper.look()
    assert world.written == ["acme"]


async def test_an_id_that_lago_cannot_store_counts_as_unknown() -> None:
    world = World(["a/../b"])
    world.error = LagoRejected("unsafe_id")
    await world.mapper.look()
    assert (world.written, world.outcomes) == ([], [NO_CUSTOMER])


@pytest.mark.parametrize("name", ["", "  ", "\0", UNATTRIBUTED, UNATTRIBUTED + "x"])
def test_unattributed_usage_is_never_mapped(name: str) -> None:
    assert identity_of(name) is None


def test_the_mapping_is_written_under_the_normalised_id_that_calls_have() -> None:
    wanted = identity_of("Cafe\u0301", "pro")
    assert wanted is not None
    assert (wanted.litellm_customer_id, wanted.lago_customer_id) == ("Caf\u00e9", "Cafe\u0301")
    assert wanted.billing_plan == "pro"
