"""The organisation of an event is decided at its seal, and is never another one than its org's."""

from dataclasses import replace

import pytest
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
def test_the_orgs_record_decides_and_its_key_where_there_is_none(
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
