"""Which Lago organisation a mapping names; data of two organisations never mix."""

from typing import Any, cast

import pytest

from connectors.billing.organizations import Organizations
from connectors.billing.reused_subscriptions import ended_by_all, held_by_others, orgs_left_behind
from connectors.lago.client import LagoClient, LagoRejected
from schemas.customers import OrgRecord, Period
from schemas.errors import Rejected
from schemas.organizations import begins_with
from streams.core.mapping.set_mapping import MappingRequest


class Records:
    """Orgs of the default organisation whose ids look like keys of another."""

    def __init__(self, *known: str) -> None:
        self._known = known

    def organization_of(self, org_id: str) -> str:
        return "" if org_id in self._known or begins_with(org_id) != "eu" else "eu"


def organizations(others: tuple[str, ...] = ("eu",), *orgs: str, known: tuple[str, ...] | None = None) -> Organizations:
    return Organizations(cast(Any, Records(*orgs)), others, ("default", "main"), known)


def request_for(name: str, customer: str = "acme") -> MappingRequest:
    return MappingRequest("someone", customer, name)


@pytest.mark.parametrize("name", ["main", "demo", "eu", "anything"])
def test_with_one_organisation_every_name_means_an_org_of_it(name: str) -> None:
    assert organizations(()).placed(request_for(name)) == request_for(name)


def test_with_several_organisations_a_name_is_one_of_theirs_or_the_defaults_or_refused() -> None:
    assert organizations().placed(request_for("main")).lago_customer_id == "acme"
    assert organizations().placed(request_for("eu")).lago_customer_id == "eu::acme"
    with pytest.raises(Rejected, match="unknown_organization"):
        organizations().placed(request_for("demo"))


def test_a_removed_organisations_name_does_not_become_an_org_of_the_default() -> None:
    gone = organizations((), known=("eu",))
    assert gone.placed(request_for("main")).lago_customer_id == "acme"
    with pytest.raises(Rejected, match="unknown_organization"):
        gone.placed(request_for("eu"))
    with pytest.raises(Rejected, match="other_organization"):
        gone.placed(request_for("main", "eu::acme"))


def test_an_org_id_of_the_default_organisation_is_never_read_as_a_key_of_another() -> None:
    with pytest.raises(Rejected, match="other_organization"):
        organizations().placed(request_for("main", "eu::acme"))
    with pytest.raises(Rejected, match="other_organization"):
        organizations(("eu",), "eu::acme").placed(request_for("eu"))
    assert organizations().placed(request_for("main", "us::acme")).lago_customer_id == "us::acme"


def org(org_id: str, organization: str, started_at: int) -> OrgRecord:
    return OrgRecord(org_id, periods=(Period("sub", started_at),), organization=organization)


def test_a_reused_id_in_one_organisation_ends_nothing_in_another() -> None:
    first, later = org("acme", "", 1), org("eu::acme", "eu", 2)
    assert ended_by_all(first, [later]) is first
    assert orgs_left_behind(later, [first]) == []
    assert held_by_others(["sub"], "acme", [first, later], 5) == set()
    assert ended_by_all(first, [org("other", "", 2)]).periods[0].terminated_at == 2
    assert held_by_others(["sub"], "acme", [first, org("other", "", 2)], 5) == {"sub"}


def test_no_organisation_is_asked_about_another_organisations_org() -> None:
    eu = LagoClient(cast(Any, _Http()), "http://lago", "key", organization="eu")
    assert (eu.in_lago("eu::acme"), eu.in_lago("")) == ("acme", "")
    default = LagoClient(cast(Any, _Http()), "http://lago", "key", others=("eu",))
    assert (default.in_lago("acme"), default.in_lago("us::acme")) == ("acme", "us::acme")
    for lago, key in ((eu, "acme"), (eu, "us::acme"), (default, "eu::acme")):
        with pytest.raises(LagoRejected, match="other_organization"):
            lago.in_lago(key)


class _Timeout:
    read = None


class _Http:
    timeout = _Timeout()
