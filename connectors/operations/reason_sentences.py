"""What the reasons of refused, held and dead usage mean, for people who read a command's output. docs/errors.md has the
causes and the next steps.
"""

from collections.abc import Iterable, Mapping
from typing import Final

#: Why the ingress or the meter refuses a call.
_OF_CALLS: Final = {
    "absurd_cost": "the cost is above 1,000,000 USD",
    "bad_cost": "the cost is no plain decimal number, for example 0.25",
    "bad_event": "a metered event without the event, or with another key than its org",
    "bad_number": "a cost, an id or a time is NaN, Infinity or beyond the numbers of JSON",
    "bad_time": "a start or an end is neither ISO 8601 nor seconds since 1970",
    "bad_tokens": "a count is no whole number; an earlier release refused it",
    "beyond_horizon": "the call ended before the dedupe retention, and is checked against the usage log",
    "contradicting_cost": "two fields hold different amounts",
    "contradicting_customer": "two fields name different customers",
    "cost_differs": "a copy of a counted call has another cost; the first cost stays billed",
    "foreign_currency": "the cost is in another currency than USD",
    "implausible_cost": "the cost is above MAX_USD_PER_CALL or MAX_USD_PER_TOKEN",
    "malformed": "the record is not one of this product",
    "negative_cost": "the cost is below 0",
    "no_identity": "the call has no id: `litellm_call_id`, `id` or `request_id`",
    "not_a_call": "no field of a call was found",
    "not_an_object": "a number, text or list stands where a call is expected",
    "not_json": "it is no JSON",
    "too_complex": "it is no strict JSON, and has too many parts for the tolerant reader",
    "too_deep": "it has more levels than any reader follows",
    "too_large": "it is larger than a record may be",
    "too_many_elements": "the body has more elements than allowed",
    "too_many_held": "20,000 metered events of the partition already wait for a subscription",
    "unknown_shape": "a later release wrote it",
    "unknown_version": "a later release wrote it",
    "unreadable": "the record cannot be read as a call",
    "wrong_type": "a cost, an id, a time or the customer has the wrong type",
}
#: Why usage waits for its org.
_OF_HELD: Final = {
    "no_mapping": "the customer has no mapping",
    "inactive": "the customer's mapping is inactive",
    "no_subscription": "no subscription of the org is known, or the mapping names a wrong org",
    "id_kind_not_mapped": "the mapping names another kind of id",
    "mapping_not_kept": "the usage is older than the oldest stored version of the mapping",
    "currency": "the org, or its plan, is billed in another currency than USD",
    "outside_period": "the usage is earlier than its subscription's start (OUT_OF_PERIOD_POLICY=hold)",
    "late_period": "the usage's billing period is invoiced (OUT_OF_PERIOD_POLICY=hold)",
    "ended": "the subscription has ended, and no later one charges the metric",
    "no_charge": "no plan of the org charges the metric",
    "ambiguous": "several subscriptions of the org charge the metric, and none is named",
    "unknown_subscription": "the mapping names a subscription that Lago does not have",
    "foreign_subscription": "the mapping names a subscription of another customer",
    "unknown_organization": "the org's Lago organisation is not in LAGO_ORGANIZATIONS",
    "unknown_rate": "the rate card's version that priced the usage is not stored any more",
}
#: Why Lago has no event, beside the reasons above.
_OF_EVENTS: Final = {
    "bad_answer": "an answer with success that does not list the sent events",
    "bad_request": "Lago refuses the event alone with 400",
    "connect": "no server answered at LAGO_API_URL",
    "dying_alike": "Lago refused the events of several subscriptions for one reason",
    "expression_evaluation_failed": "the metric's expression does not work on the event",
    "id_conflict": "Lago has another event under this id",
    "invalid_timestamp": "Lago refuses the event's time",
    "invoiced_period": "the billing period was invoiced while the event waited",
    "lago_refused": "Lago refuses the event; `meterbridge dlq show` has its words",
    "lock_acquisition_failed": "Lago was busy with the same rows at each attempt",
    "missing_code": "the event has no metric",
    "missing_transaction_id": "the event has no id",
    "no_answer": "the connection was cut; Lago may have the event",
    "not_lago": "the answer is not Lago's",
    "timeout": "Lago did not answer in time; it may have the event",
    "unconfirmed": "Lago refuses it as a repeat, but does not show it",
}
#: Why a call that came late or again is not sent.
_OF_COPIES: Final = {
    "log_incomplete": "the call may have been counted when the usage log was not complete; --trust-log-from TIME overrules it",
    "no_call_id": "without `litellm_call_id` it is unclear whether a call in the usage log is this one: add it, or compare the calls",
    "no_start": "the row does not say when the call began, and may be counted already: add `startTime`",
    "usage_pruned": "the usage log of the call's month was pruned",
}
SENTENCES: Final[Mapping[str, str]] = {**_OF_EVENTS, **_OF_CALLS, **_OF_HELD, **_OF_COPIES}


def meanings(reasons: Iterable[str]) -> str:
    """Return a line for each known reason, as `no_mapping: the customer has no mapping`; `""` = none is known."""
    return "\n".join(f"{reason}: {SENTENCES[reason]}." for reason in sorted(set(reasons) & SENTENCES.keys()))
