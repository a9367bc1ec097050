"""What an org's record holds once something was changed in Lago."""

from connectors.lago.shapes import Customer, Subscription
from connectors.orgs.accounts import Account, noted
from schemas.customers import OrgRecord, Period
from schemas.moments import parse_us

BEGUN, ENDED, NOW = (parse_us(f"2025-03-0{day}T12:00:00Z") for day in (1, 2, 3))
ACME = Customer("org_1", name="Acme", email="a@acme.io", currency="USD")
RUNNING = OrgRecord("org_1", plan="starter", periods=(Period("sub_1", BEGUN, None, "starter"),))


def test_an_ended_subscription_ended_when_lago_says_not_when_we_heard_of_it() -> None:
    """Usage between the two would be sent to Lago and never billed."""
    ended = Subscription("sub_1", terminated_at="2025-03-02T12:00:00Z")
    record = noted(RUNNING, Account(ACME), [], ended, NOW)
    assert [one.terminated_at for one in record.periods] == [ENDED]
    assert noted(record, Account(ACME), [], ended, NOW + 1).periods == record.periods


def test_an_earlier_period_and_another_subscription_stay_as_they_are() -> None:
    periods = (Period("sub_1", BEGUN - 2, BEGUN - 1), Period("other", BEGUN), Period("sub_1", BEGUN))
    ended = Subscription("sub_1", terminated_at="2025-03-02T12:00:00Z")
    active = [Period("other", BEGUN)]
    record = noted(OrgRecord("org_1", periods=periods), Account(ACME), active, ended, NOW)
    assert {(one.external_id, one.started_at): one.terminated_at for one in record.periods} == {
        ("sub_1", BEGUN - 2): BEGUN - 1,
        ("other", BEGUN): None,
        ("sub_1", BEGUN): ENDED,
    }


def test_a_customer_without_a_plan_leaves_only_who_it_is() -> None:
    record = noted(OrgRecord("org_1"), Account(ACME), [], None, NOW)
    assert (record.name, record.email, record.currency) == ("Acme", "a@acme.io", "USD")
    assert (record.plan, record.periods) == ("", ())


def test_a_plan_that_changed_after_the_account_was_read_is_the_orgs() -> None:
    """By the record's plan the org's limits are known."""
    account = Account(ACME, Subscription("sub_1", plan_code="starter"))
    active = [Period("other", BEGUN, None, "trial"), Period("sub_1", ENDED, None, "professional")]
    assert noted(RUNNING, account, active, None, NOW).plan == "professional"
    assert noted(RUNNING, account, active[:1], None, NOW).plan == "starter"


def test_what_is_the_same_is_not_written_again() -> None:
    account = Account(ACME, Subscription("sub_1", plan_code="starter"))
    record = noted(RUNNING, account, [Period("sub_1", BEGUN, None, "starter")], None, NOW)
    assert noted(record, account, [Period("sub_1", BEGUN, None, "starter")], None, NOW + 1) == record
