"""An org's record after a change in Lago."""

from connectors.billing.org_accounts import Account, noted
from connectors.lago.responses import Customer, Subscription
from schemas.customers import OrgRecord, Period
from schemas.moments import SECOND_US, parse_us

BEGUN, ENDED, NOW = (parse_us(f"2025-03-0{day}T12:00:00Z") for day in (1, 2, 3))
ACME = Customer("org_1", name="Acme", email="a@acme.io", currency="USD")
RUNNING = OrgRecord("org_1", plan="starter", periods=(Period("sub_1", BEGUN, None, "starter"),))
OVER = Period("sub_1", BEGUN, ENDED, "starter")


def test_the_end_of_a_subscription_is_lagos_time_and_not_the_time_of_our_notice() -> None:
    """Usage between the two times would be sent to Lago and never billed."""
    record = noted(RUNNING, Account(ACME), [OVER], NOW)
    assert [one.terminated_at for one in record.periods] == [ENDED]
    assert noted(record, Account(ACME), [OVER], NOW + 1).periods == record.periods


def test_a_reused_id_has_no_subscription_between_its_two_periods() -> None:
    """It was ended on Lago's own pages without a webhook; then the org was set up again."""
    account = Account(ACME, Subscription("sub_1", plan_code="starter"))
    again = Period("sub_1", NOW - SECOND_US, None, "starter")
    assert noted(RUNNING, account, [again, OVER], NOW).periods == (OVER, again)


def test_an_earlier_period_and_another_subscription_are_not_changed() -> None:
    periods = (Period("sub_1", BEGUN - 2, BEGUN - 1), Period("other", BEGUN), Period("sub_1", BEGUN))
    listed = [Period("other", BEGUN), Period("sub_1", BEGUN, ENDED)]
    record = noted(OrgRecord("org_1", periods=periods), Account(ACME), listed, NOW)
    assert {(one.external_id, one.started_at): one.terminated_at for one in record.periods} == {
        ("sub_1", BEGUN - 2): BEGUN - 1,
        ("other", BEGUN): None,
        ("sub_1", BEGUN): ENDED,
    }


def test_a_customer_without_a_plan_changes_only_the_customers_own_fields() -> None:
    record = noted(OrgRecord("org_1"), Account(ACME), [], NOW)
    assert (record.name, record.email, record.currency) == ("Acme", "a@acme.io", "USD")
    assert (record.plan, record.periods) == ("", ())


def test_a_plan_that_changed_after_the_account_was_read_is_recorded() -> None:
    """The plan in the record decides which limits the org has."""
    account = Account(ACME, Subscription("sub_1", plan_code="starter"))
    listed = [Period("other", BEGUN, None, "trial"), Period("sub_1", ENDED, None, "professional"), OVER]
    assert noted(RUNNING, account, listed, NOW).plan == "professional"
    assert noted(RUNNING, account, listed[:1], NOW).plan == "starter"


def test_an_unchanged_record_is_not_written_again() -> None:
    account = Account(ACME, Subscription("sub_1", plan_code="starter"))
    record = noted(RUNNING, account, [Period("sub_1", BEGUN, None, "starter")], NOW)
    assert noted(record, account, [Period("sub_1", BEGUN, None, "starter")], NOW + 1) == record
