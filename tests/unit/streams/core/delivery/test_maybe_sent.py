"""Whether Lago may have the event of a dead letter: the sink's fact decides; without it, the reason only if it excludes it."""

import pytest

from connectors.operations.dead_letter_reasons import KNOWN
from schemas.reasons import INGRESS_REASONS, INGRESS_RULE_REASONS
from streams.core.delivery.maybe_sent import lago_may_have

#: Reasons that a dead letter gets only where Lago does not have the event. Each other one may follow an unanswered post.
CERTAIN = {
    *("bad_request", "currency", "ended", "id_conflict", "invalid_timestamp", "invoiced_period", "lago_refused"),
    *("malformed", "missing_code", "missing_transaction_id", "no_charge", "other_organization"),
}
OPEN = {
    *(
        "bad_answer",
        "connect",
        "dying_alike",
        "expression_evaluation_failed",
        "http_301",
        "http_403",
        "http_408",
        "http_409",
    ),
    *("http_429", "http_500", "http_503", "lock_acquisition_failed", "no_answer", "not_lago", "organization_closed"),
    *("timeout", "too_large", "unconfirmed", "a reason of a later release", ""),
}


@pytest.mark.parametrize("reason", sorted(OPEN | CERTAIN))
@pytest.mark.parametrize("maybe_sent", [False, True])
def test_the_fact_of_the_sink_decides_and_not_the_reason_of_the_last_failure(reason: str, maybe_sent: bool) -> None:
    assert lago_may_have(reason, maybe_sent) is (maybe_sent or reason == "unconfirmed")


@pytest.mark.parametrize("reason", sorted(OPEN | CERTAIN))
def test_without_the_fact_lago_may_have_each_event_whose_reason_does_not_exclude_it(reason: str) -> None:
    assert lago_may_have(reason, None) is (reason in OPEN)


def test_every_known_reason_of_an_event_is_in_one_of_the_two_lists() -> None:
    of_calls = {
        *INGRESS_REASONS,
        *INGRESS_RULE_REASONS,
        "beyond_horizon",
        "cost_differs",
        "implausible_cost",
        "too_many_held",
    }
    assert KNOWN - of_calls <= OPEN | CERTAIN


@pytest.mark.parametrize("maybe_sent", [None, False, True])
def test_an_event_that_lago_accepted_and_does_not_bill_is_no_doubtful_dead_letter(maybe_sent: bool | None) -> None:
    assert not lago_may_have("unbillable_ended", maybe_sent)
