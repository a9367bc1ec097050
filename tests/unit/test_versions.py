"""What a deleted mapping left behind goes to the next one only where its org never had a subscription."""

import pytest

from schemas.customers import MappingVersion, OrgRecord, Period
from streams.core.versions import payers

HAD = {"old": OrgRecord("old", periods=(Period("sub_old", 0, 10),))}


def left(orgs: dict[str, OrgRecord], *, named: str = "", deleted: bool = True, at_us: int = 50) -> list[str]:
    """Who may be asked to pay for usage of `at_us`: mapped to `old`, unmapped at 100, mapped to `new` at 200."""
    versions = (
        MappingVersion(0, "old", "t", external_subscription_id=named),
        MappingVersion(100, "old", "t", is_active=False, deleted=deleted, external_subscription_id=named),
        MappingVersion(200, "new", "t"),
    )
    return [version.lago_customer_id for version in payers(versions, at_us, "user", orgs)]


@pytest.mark.parametrize("orgs", [HAD, HAD | {"new": OrgRecord("new")}])
def test_what_was_used_under_an_org_that_had_a_subscription_stays_with_it(orgs: dict[str, OrgRecord]) -> None:
    """Even one that has ended: it may have been billed there."""
    assert left(orgs) == ["old"]


def test_an_org_that_a_mapping_named_a_subscription_of_had_one() -> None:
    assert left({}, named="sub_old") == left({"old": OrgRecord("old")}, named="sub_old") == ["old"]


@pytest.mark.parametrize("orgs", [{}, {"old": OrgRecord("old")}])
def test_what_nobody_could_have_been_billed_for_goes_to_the_next(orgs: dict[str, OrgRecord]) -> None:
    assert left(orgs) == ["old", "new"]
    assert left(orgs, deleted=False) == ["old"], "an org is left for another, and its past is not"


def test_after_its_end_the_next_one_alone_is_asked() -> None:
    for orgs in ({}, HAD):
        assert left(orgs, at_us=100) == left(orgs, at_us=250) == ["new"]
