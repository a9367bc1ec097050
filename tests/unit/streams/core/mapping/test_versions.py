"""Usage of a deleted mapping goes to the next mapping only if its org never had a subscription."""

import pytest

from schemas.customers import MappingVersion, OrgRecord, Period
from streams.core.mapping.versions import covering, payers

HAD = {"old": OrgRecord("old", periods=(Period("sub_old", 0, 10),))}


def possible_payers(orgs: dict[str, OrgRecord], *, named: str = "", deleted: bool = True, at_us: int = 50) -> list[str]:
    """Which mappings may pay for usage at `at_us`: mapped to `old`, unmapped at 100, mapped to `new` at 200."""
    versions = (
        MappingVersion(0, "old", "t", external_subscription_id=named),
        MappingVersion(100, "old", "t", is_active=False, deleted=deleted, external_subscription_id=named),
        MappingVersion(200, "new", "t"),
    )
    return [version.lago_customer_id for version in payers(versions, at_us, "user", orgs)]


@pytest.mark.parametrize("orgs", [HAD, HAD | {"new": OrgRecord("new")}])
def test_usage_of_an_org_that_had_a_subscription_stays_with_it(orgs: dict[str, OrgRecord]) -> None:
    """Even if the subscription has ended: the usage may have been billed there."""
    assert possible_payers(orgs) == ["old"]


def test_an_org_with_a_subscription_named_in_a_mapping_had_one() -> None:
    assert (
        possible_payers({}, named="sub_old") == possible_payers({"old": OrgRecord("old")}, named="sub_old") == ["old"]
    )


@pytest.mark.parametrize("orgs", [{}, {"old": OrgRecord("old")}])
def test_usage_that_could_not_have_been_billed_goes_to_the_next_mapping(orgs: dict[str, OrgRecord]) -> None:
    assert possible_payers(orgs) == ["old", "new"]
    assert possible_payers(orgs, deleted=False) == ["old"], "an org is left for another, and its past is not"


def test_after_its_end_only_the_next_mapping_is_considered() -> None:
    for orgs in ({}, HAD):
        assert possible_payers(orgs, at_us=100) == possible_payers(orgs, at_us=250) == ["new"]


@pytest.mark.parametrize(("at_us", "number"), [(-5, 0), (0, 0), (9, 0), (10, 1), (19, 1), (20, 2), (99, 2)])
def test_a_version_covers_from_its_start_to_the_next_and_the_first_also_all_before_it(at_us: int, number: int) -> None:
    assert covering(tuple(MappingVersion(at, "org", "t") for at in (0, 10, 20)), at_us) == number


def version(told: str, at_us: int) -> MappingVersion:
    """`a`: active for org a; `A`: inactive; `-`: deleted; `a:team`: for calls of teams."""
    org, _, kind = told.partition(":")
    active, deleted = org.islower(), org == "-"
    return MappingVersion(at_us, org.lower(), "t", is_active=active, deleted=deleted, id_kind=kind)


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("a", ["a"]),
        ("A", []),
        ("-", []),
        ("a:team", []),
        ("a:user", ["a"]),
        ("A a", ["a"]),
        ("A A a", ["a"]),
        ("a:team a", ["a"]),
        ("a:team A b:user", ["b"]),
        ("a a", ["a", "a"]),
        ("a A a", ["a", "a"]),
        ("a b", ["a"]),
        ("a b a", ["a"]),
        ("a A b", ["a"]),
        ("a - b", ["a", "b"]),
        ("a - A b", ["a", "b"]),
        ("- a b", ["a"]),
        ("A - a b", ["a"]),
        ("a:team - a b", ["a"]),
    ],
)
def test_the_next_version_is_considered_if_the_one_before_covers_nothing_or_has_the_same_org(
    told: str, asked: list[str]
) -> None:
    """From one org to another is a move; usage of a mapping that was deleted before its org ever had a subscription
    goes to the next.
    """
    versions = tuple(version(one, 10 * number) for number, one in enumerate(told.split()))
    assert [one.lago_customer_id for one in payers(versions, 5, "user", {})] == asked
    before = (MappingVersion(-10, "z", "t"), *versions)
    assert [one.lago_customer_id for one in payers(before, 5, "user", {})] == asked
