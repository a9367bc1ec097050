"""An event is posted only to its org's Lago organisation, no matter which meter sealed it."""

import msgspec
import pytest

from schemas.customers import OrgRecord, Period
from schemas.moments import HOUR_US
from schemas.policy import OutOfPeriodPolicy
from schemas.records import LagoEvent
from streams.core.delivery.earlier_posts import went_elsewhere
from streams.core.delivery.restamp import RestampDecision, restamp_decision

EVENT = LagoEvent("t", "sub", "ai_usage", "90000.000", "1", {"org_id": "eu::acme", "unit": "1"})
VALUE = msgspec.json.encode(EVENT)
NOW = 26 * HOUR_US


@pytest.mark.parametrize(
    ("its_own", "posted_to", "refused"),
    [("eu", "eu", ""), ("", "", ""), ("eu", "", "other_organization"), ("", "eu", "other_organization")],
)
def test_an_event_whose_org_is_in_another_organisation_is_refused(its_own: str, posted_to: str, refused: str) -> None:
    orgs = {"eu::acme": OrgRecord("eu::acme", periods=(Period("sub", 0),), organization=its_own)}
    decision = restamp_decision(VALUE, orgs, OutOfPeriodPolicy.SHIFT, NOW, "ai_usage", posted_to)
    assert decision == RestampDecision(VALUE, refused=refused)
    elsewhere = went_elsewhere(VALUE, orgs, OutOfPeriodPolicy.SHIFT, NOW, "ai_usage", posted_to)
    assert elsewhere == bool(refused), "what is posted as it was needs no look-up"


def test_without_an_org_record_the_manifest_decides() -> None:
    assert restamp_decision(VALUE, {}, OutOfPeriodPolicy.SHIFT, NOW, "ai_usage", "eu") == RestampDecision(VALUE)
