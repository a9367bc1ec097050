"""The Lago organisation of an event is decided at its seal, and is always its org's."""

from collections import defaultdict
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as copy

from schemas.customers import OrgRecord, Period
from schemas.ledger import Position
from schemas.moments import SECOND_US
from schemas.policy import MeterPolicy
from streams.core.metering.close_window import seal
from streams.core.metering.step_changes import Changes
from tests.unit.streams.core.metering.test_close_window import window

POLICY = MeterPolicy()
HOUR = 3600 * SECOND_US


def sealed(org: str, organizations: tuple[str, ...], *records: OrgRecord) -> Changes:
    orgs = {record.org_id: record for record in records}
    policy = replace(POLICY, organizations=organizations)
    one = copy(window(), org_id=org, subscription="sub")
    return seal(Position(), [one], orgs, policy, "prefix-", 0, HOUR)


def record(org: str, organization: str = "") -> OrgRecord:
    return OrgRecord(org, periods=(Period("sub", 0),), organization=organization)


@pytest.mark.parametrize(
    ("org", "known", "records", "organization"),
    [
        ("acme", (), (record("acme"),), ""),
        ("acme", ("eu",), (record("acme"),), ""),
        ("eu::acme", ("eu",), (record("eu::acme", "eu"),), "eu"),
        ("eu::acme", ("eu",), (), "eu"),
        ("eu::acme", (), (record("eu::acme"),), ""),
        ("eu::acme", ("eu",), (record("eu::acme"),), ""),
        ("arn:x::y", (), (), ""),
    ],
)
def test_the_orgs_record_decides_or_the_prefix_of_the_key_without_a_record(
    org: str, known: tuple[str, ...], records: tuple[OrgRecord, ...], organization: str
) -> None:
    [part] = sealed(org, known, *records).sealed
    assert part.manifest.organization == organization
    assert part.event.properties["org_id"] == org
    assert part.event.transaction_id == f"prefix-{part.manifest.first}", "ids are what they were"


@pytest.mark.parametrize("records", [(), (record("eu::acme", "eu"),)])
def test_usage_of_an_organisation_that_is_not_configured_is_held_and_never_the_defaults(
    records: tuple[OrgRecord, ...],
) -> None:
    for known in ((), ("us",)):
        changes = sealed("eu::acme", known, *records)
        assert not changes.sealed
        [held] = changes.windows.values()
        assert held is not None and held.held == "unknown_organization"


ORGS = {"acme": "", "us::acme": "", "eu::acme": "eu", "eu::other": "eu", "gone::acme": "gone"}


@given(st.lists(st.tuples(st.sampled_from(sorted(ORGS)), st.decimals("0.000001", "99", places=6)), max_size=12))
def test_each_organisation_gets_exactly_what_its_orgs_owe_to_the_last_decimal(
    usage: list[tuple[str, Decimal]],
) -> None:
    """Usage of an organisation that is not configured is held, and in no sum."""
    orgs = {org: record(org, organization) for org, organization in ORGS.items()}
    windows = [
        copy(window(), first=number, last=number, org_id=org, subscription="sub", cost=usd)
        for number, (org, usd) in enumerate(usage)
    ]
    changes = seal(Position(), windows, orgs, replace(POLICY, organizations=("eu",)), "prefix-", 0, HOUR)
    owed: defaultdict[str, Decimal] = defaultdict(Decimal)
    for org, usd in usage:
        owed[ORGS[org]] += usd * 100
    sent: defaultdict[str, Decimal] = defaultdict(Decimal)
    for part in changes.sealed:
        assert ORGS[part.event.properties["org_id"]] == part.manifest.organization
        sent[part.manifest.organization] += Decimal(part.event.precise_total_amount_cents)
    kept = sum((one.cost * 100 for one in changes.windows.values() if one is not None), Decimal(0))
    assert (sent[""], sent["eu"], sent["gone"], kept) == (owed[""], owed["eu"], 0, owed["gone"])
