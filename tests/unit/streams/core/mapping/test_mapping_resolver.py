"""What the resolver caches: targets that do not depend on time, until a table changes."""

import pytest

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.wire import ORG
from streams.core.mapping.held_reasons import NO_MAPPING
from streams.core.mapping.resolve import Resolver

FIRST, SECOND = Period("first", 0, 100, charged=("ai_usage",)), Period("second", 100, charged=("ai_usage",))
THIRD = Period("third", 200, charged=("ai_usage",))


def record(*beginnings: int, org: str = "org") -> CustomerRecord:
    names = [f"{org}_{number}" if number else org for number in range(len(beginnings))]
    return CustomerRecord(
        "c", tuple(MappingVersion(at, name, "t") for at, name in zip(beginnings, names, strict=True)), 0, 0
    )


def orgs(*periods: Period) -> dict[str, OrgRecord]:
    later = {f"org_{number}": OrgRecord(f"org_{number}", periods=(Period(f"of_{number}", 0),)) for number in (1, 2)}
    return {"org": OrgRecord("org", periods=periods), **later}


@pytest.mark.parametrize(
    ("customer", "known", "subscriptions"),
    [
        (record(0), orgs(FIRST), ["first", "first", "first"]),
        (record(0), orgs(FIRST, SECOND), ["first", "second", "second"]),
        (
            record(0),
            orgs(FIRST, Period("second", 100, 200, charged=("ai_usage",)), THIRD),
            ["first", "second", "third"],
        ),
        (record(0, 100), orgs(FIRST), ["first", "of_1", "of_1"]),
        (record(0, 100, 200), orgs(FIRST), ["first", "of_1", "of_2"]),
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_each_time_has_its_own_target_after_any_earlier_lookups(
    customer: CustomerRecord, known: dict[str, OrgRecord], subscriptions: list[str], order: tuple[int, ...]
) -> None:
    resolver = Resolver({"c": customer}, known, code="ai_usage")
    for _ in range(2):
        for number in order:
            assert resolver("c", (50, 150, 250)[number], "user").subscription == subscriptions[number]


@pytest.mark.parametrize("known", [orgs(FIRST), {}])
def test_a_target_that_does_not_depend_on_time_is_looked_up_once_until_a_table_changes(
    known: dict[str, OrgRecord],
) -> None:
    """Then a call costs a lookup in one table instead of three."""
    customers = {"c": record(0)}
    resolver = Resolver(customers, known, code="ai_usage")
    before = resolver("c", 5, "user")
    customers["c"] = record(0, org="other")
    assert resolver("c", 5, "user") is before
    assert resolver("c", 5, "team").org_id == "other", "another kind of id is another question"
    resolver.forget()
    assert resolver("c", 5, "user").org_id == "other"


def test_a_customer_that_is_not_mapped_is_looked_up_every_time() -> None:
    customers = dict[str, CustomerRecord]()
    resolver = Resolver(customers, orgs(SECOND), code="ai_usage")
    assert resolver("c", 5, "user").held == NO_MAPPING
    customers["c"] = record(0)
    assert resolver("c", 150, "user").subscription == "second"


def test_an_orgs_own_usage_is_not_mistaken_for_that_of_a_customer_with_its_name() -> None:
    resolver = Resolver({"org": record(0, org="org_1")}, orgs(FIRST), code="ai_usage")
    assert resolver("org", 5, "user").subscription == "of_1"
    assert resolver("org", 5, ORG, "ai_usage").subscription == "first"
    assert resolver("org", 5, "user").subscription == "of_1"
