"""How Lago's active subscriptions change an org's periods, ended ones included."""

from connectors.billing.subscription_discovery import org_with
from connectors.lago.responses import Customer
from schemas.customers import OrgRecord, Period

NOW = 1_800_000_000_000_000
ACME = Customer("org", name="Acme", currency="EUR")


def org(*periods: Period) -> OrgRecord:
    return OrgRecord("org", "Acme", "llm", "EUR", periods=periods, updated_at=1)


def test_a_new_org_gets_name_currency_and_periods_ordered_by_their_start() -> None:
    late, early = Period("b", NOW - 5, plan_code="llm"), Period("a", NOW - 9, plan_code="llm")
    assert org_with(OrgRecord("org"), ACME, [late, early], NOW) == OrgRecord(
        "org", "Acme", "llm", "EUR", periods=(early, late), updated_at=NOW
    )


def test_a_field_that_lago_does_not_report_keeps_its_value() -> None:
    known, found = org(Period("a", 1)), [Period("a", 1), Period("b", 2)]
    for customer in (None, Customer("org")):
        learnt = org_with(known, customer, found, NOW)
        assert (learnt.name, learnt.currency, len(learnt.periods)) == ("Acme", "EUR", 2)


def test_an_answer_without_changes_returns_the_same_record() -> None:
    known = org(Period("a", 1))
    assert org_with(known, ACME, [Period("a", 1)], NOW) is known


def test_a_subscription_that_is_no_longer_active_has_ended_by_now() -> None:
    learnt = org_with(org(Period("old", 1)), ACME, [Period("new", 2)], NOW)
    assert learnt.periods == (Period("old", 1, NOW), Period("new", 2))


def test_a_plan_change_under_the_same_id_ends_the_period_where_the_next_begins() -> None:
    learnt = org_with(org(Period("sub", 1)), ACME, [Period("sub", 500, plan_code="big")], NOW)
    assert learnt.periods == (Period("sub", 1, 500), Period("sub", 500, plan_code="big"))
    backdated = org_with(org(Period("sub", 500)), ACME, [Period("sub", 1)], NOW)
    assert backdated.periods == (Period("sub", 1), Period("sub", 500, NOW))


def test_ended_and_future_periods_are_not_touched() -> None:
    known = org(Period("ended", 1, 7), Period("coming", NOW + 1))
    learnt = org_with(known, ACME, [Period("now", 5)], NOW)
    assert learnt.periods == (Period("ended", 1, 7), Period("now", 5), Period("coming", NOW + 1))
