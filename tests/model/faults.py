"""Small planted faults of the kinds that were found in the product: each replaces one rule by a wrong one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace as copy

from connectors.billing import org_accounts
from connectors.operations import after_end, after_invoice
from connectors.operations.last_invoice import Counted, Life, last_counted
from schemas.ledger import SEEN_PREFIX, SETTLED_PREFIX, Rated, window_key
from schemas.money import plain
from schemas.policy import OutOfPeriodPolicy
from streams.agents import sink
from streams.core.delivery import after_end as rebilled
from streams.core.delivery import after_invoice as rule
from streams.core.delivery import restamp
from streams.core.delivery.after_invoice import CountableEvent, Earlier, InvoiceMatch, overtaken
from streams.core.delivery.restamp import RestampDecision
from streams.core.mapping import billing_periods, resolve, subscription_choice, versions
from streams.core.metering import batch_identities, close_window, fold, lago_event, matching, normalise, write_off
from streams.core.metering.known_identities import COSTLESS, fingerprint
from streams.core.pricing import cards, price
from streams.state.changelog import records_of
from tests.model import stand_ins
from tests.model.product import world

Plant = Callable[[pytest.MonkeyPatch], None]
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US


def polls_are_billed_each_time(patch: pytest.MonkeyPatch) -> None:
    """Item 1: a poll is identified by its call id, like any call."""
    patch.setattr(normalise, "tell_kind", lambda usage, call: None)


def a_copy_without_cost_replaces_the_priced_copy(patch: pytest.MonkeyPatch) -> None:
    """Item 5: the copy with a cost is not billed."""
    patch.setattr(fold, "COSTLESS", None)


def invoiced_periods_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Item 10: whether the billing period is already invoiced is not checked."""
    patch.setattr(billing_periods, "running_since", lambda found, now_us: found.started_at)


def delayed_events_are_posted_unchanged(patch: pytest.MonkeyPatch) -> None:
    """Item 10: events that waited over the month's end during an outage."""
    patch.setattr(sink, "restamp_decision", lambda value, *_: RestampDecision(value))


def any_running_subscription_is_chosen(patch: pytest.MonkeyPatch) -> None:
    """Item 11: the plan's charges are not checked."""
    for module in (subscription_choice, billing_periods):
        patch.setattr(module, "charges", lambda found, code: True)


def held_usage_is_merged_by_day(patch: pytest.MonkeyPatch) -> None:
    """Item 12: usage of several orgs and mapping versions is merged."""
    patch.setattr(
        close_window,
        "stretch",
        lambda borders, first, last: (first - first % _DAY_US, first - first % _DAY_US + _DAY_US),
    )
    patch.setattr(close_window, "window_key", lambda window: (window.customer_id, *window_key(window)[2:]))


def identities_are_forgotten_two_hours_early(patch: pytest.MonkeyPatch) -> None:
    """A copy within the dedupe retention is billed again."""
    write = batch_identities.BatchIdentities.write
    patch.setattr(
        batch_identities.BatchIdentities,
        "write",
        lambda self, changes, first, us, hour: write(self, changes, first, us - 2 * _HOUR_US, hour),
    )


def the_horizon_is_an_hour_too_long(patch: pytest.MonkeyPatch) -> None:
    """Calls that may be forgotten are counted without a check."""
    oldest_us = fold.oldest_us
    patch.setattr(fold, "oldest_us", lambda *now: oldest_us(*now) - _HOUR_US)


def cents_are_rounded_in_every_event(patch: pytest.MonkeyPatch) -> None:
    """A bill is then a sum of rounded amounts."""
    patch.setattr(lago_event, "cents_text", lambda usd: plain(Decimal(round(usd * 100))))


def a_write_off_leaves_out_merged_windows(patch: pytest.MonkeyPatch) -> None:
    """Merged usage stays held."""
    meant = write_off._meant
    patch.setattr(write_off, "_meant", lambda window, order: not window.merged and meant(window, order))


def the_kind_of_an_id_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """A client that names another customer's id causes bills for that customer."""
    patch.setattr(versions, "covers", lambda version, id_kind: version.is_active)


def a_move_applies_to_earlier_usage(patch: pytest.MonkeyPatch) -> None:
    """Usage held for one org goes to the next org."""
    covering, covers = versions.covering, versions.covers
    patch.setattr(
        resolve,
        "payers",
        lambda found, at_us, kind, orgs, now_us=None: (
            one for one in found[covering(found, at_us) :] if covers(one, kind)
        ),
    )


def an_ended_subscription_is_billed(patch: pytest.MonkeyPatch) -> None:
    """Usage is posted to a subscription after its last invoice."""
    patch.setattr(billing_periods, "over", lambda found, now_us: False)
    patch.setattr(subscription_choice, "over", lambda found, now_us: False)


def a_backfilled_row_is_not_recognised_as_a_copy(patch: pytest.MonkeyPatch) -> None:
    """The callback that arrives after it is billed too."""
    patch.setattr(normalise, "_twins", lambda usage: None)


def the_log_is_searched_by_identity_alone(patch: pytest.MonkeyPatch) -> None:
    """A row has another millisecond than the callback."""
    patch.setattr(matching, "same_call", lambda copy, row: copy.identity == row.identity)


def identities_are_not_stored(patch: pytest.MonkeyPatch) -> None:
    """After a restart every copy is new."""

    def records(changes: Any) -> Iterator[tuple[bytes, bytes | None]]:
        written = list(records_of(changes))
        return iter([one for one in written if not one[0].startswith((SEEN_PREFIX, SETTLED_PREFIX))])

    patch.setattr(stand_ins, "records_of", records)


def a_named_subscription_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Lago has no subscription with this id, or another org has it, or it charges nothing."""
    patch.setattr(resolve, "named", lambda org, subscription, *_: subscription_choice.Choice(subscription))


def an_answer_of_the_api_is_not_recorded(patch: pytest.MonkeyPatch) -> None:
    """Lago's answer to a request of the API is not stored in the org's record."""

    async def noting(*_: object) -> None:
        """Nothing."""

    patch.setattr(org_accounts.OrgAccounts, "_note", noting)


def events_after_an_end_stay_at_the_ended_subscription(patch: pytest.MonkeyPatch) -> None:
    """Lago accepted it, and no invoice counts it."""
    patch.setattr(after_end, "gaps", lambda periods, since_us: [])


def events_after_an_end_are_posted_with_their_old_time(patch: pytest.MonkeyPatch) -> None:
    """Their time is in a month that was invoiced already."""
    patch.setattr(rebilled, "billed", lambda periods, subscription, at_us, *_, **__: billing_periods.Billed(at_us))


def every_event_stored_after_an_end_is_late(patch: pytest.MonkeyPatch) -> None:
    """Usage that its last invoice counted is billed twice."""
    patch.setattr(
        after_invoice,
        "overtaken",
        lambda _earlier, after, *_: InvoiceMatch(late=tuple(one.transaction_id for one in after)),
    )


def nothing_is_late_for_a_last_invoice(patch: pytest.MonkeyPatch) -> None:
    """Usage that Lago stored after it had counted is on no invoice."""
    patch.setattr(after_invoice, "overtaken", lambda *_: InvoiceMatch())


def a_missing_invoice_counts_as_an_empty_one(patch: pytest.MonkeyPatch) -> None:
    """Lago counts it minutes after the end."""

    async def counted(lago: Any, org_id: str, life: Life, *rest: Any) -> Counted:
        found = await last_counted(lago, org_id, life, *rest)
        return Counted(life.started_us) if found.waits else found

    patch.setattr(after_invoice, "last_counted", counted)


def ids_decide_what_was_counted_within_a_second(patch: pytest.MonkeyPatch) -> None:
    """Lago reports whole seconds, and the first events by id are mistaken for the first that were stored."""

    def judged(earlier: Earlier, after: Sequence[CountableEvent], events: int, _cents: int) -> InvoiceMatch:
        found = sorted(after, key=lambda one: (one.created_us, one.transaction_id))
        return InvoiceMatch(late=tuple(one.transaction_id for one in found[max(0, events - earlier.events) :]))

    patch.setattr(after_invoice, "overtaken", judged)


def one_unclear_second_makes_the_whole_invoice_unclear(patch: pytest.MonkeyPatch) -> None:
    """Events that Lago stored later, and did not count, become unclear too."""

    def judged(earlier: Earlier, after: Sequence[CountableEvent], *fee: int) -> InvoiceMatch:
        found = overtaken(earlier, after, *fee)
        return InvoiceMatch(unclear=tuple(one.transaction_id for one in after)) if found.unclear else found

    patch.setattr(after_invoice, "overtaken", judged)


def the_sum_of_a_last_invoice_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """The sum could decide which events of one second were counted: only one choice of them gives it."""
    told_apart = rule._compared_with_fee
    patch.setattr(
        rule, "_compared_with_fee", lambda then, number, *_: ((), then) if number > 0 else told_apart(then, number, *_)
    )


def the_oldest_kept_version_decides_about_held_usage(patch: pytest.MonkeyPatch) -> None:
    """The usage was held for the org of a version that is removed."""
    patch.setattr(resolve, "forgotten", lambda *_: False)


def the_sink_moves_late_events_under_every_policy(patch: pytest.MonkeyPatch) -> None:
    """With OUT_OF_PERIOD_POLICY=hold an operator decides."""
    patch.setattr(
        sink,
        "restamp_decision",
        lambda value, orgs, _, *now: restamp.restamp_decision(value, orgs, OutOfPeriodPolicy.SHIFT, *now),
    )


def the_card_of_the_arrival_prices_a_call(patch: pytest.MonkeyPatch) -> None:
    """The card at the call's end should price it."""
    at = cards.Rates.at
    patch.setattr(cards.Rates, "at", lambda self, _end_us: at(self, world()[0].us()))


def the_payers_factor_applies_twice(patch: pytest.MonkeyPatch) -> None:
    """It applies to the price and again to the sum."""
    patch.setattr(Rated, "billed", property(lambda self: self.usd * self.factor * self.factor))


def the_minimum_comes_before_markup_and_factors(patch: pytest.MonkeyPatch) -> None:
    """A discount then leads to less than the minimum."""

    def priced_by(tariff: price.Tariff, factors: Any, call: Any, unit: Decimal) -> Decimal:
        least = copy(call, cost=max(call.cost, tariff.minimum))
        return price.priced_by(replace(tariff, minimum=Decimal(0)), factors, least, unit)

    patch.setattr(cards, "priced_by", priced_by)


def cached_tokens_are_billed_as_input_too(patch: pytest.MonkeyPatch) -> None:
    """LiteLLM counts them as input."""
    counts = price._counts
    patch.setattr(price, "_counts", lambda call: (call.tokens_input, *counts(call)[1:]))


def a_call_priced_by_a_card_is_billed_again_with_a_cost(patch: pytest.MonkeyPatch) -> None:
    """LiteLLM learns the price later, and the call is billed twice."""
    patch.setattr(fold, "tag_of", lambda usage, decision: fingerprint(usage.cost) if usage.cost else COSTLESS)


def held_usage_has_no_factor(patch: pytest.MonkeyPatch) -> None:
    """The payer was not known when it was counted."""
    retarget = close_window._retarget
    patch.setattr(
        close_window, "_retarget", lambda window, target, policy, _rates: retarget(window, target, policy, None)
    )


FAULTS: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        polls_are_billed_each_time,
        a_copy_without_cost_replaces_the_priced_copy,
        invoiced_periods_are_not_checked,
        delayed_events_are_posted_unchanged,
        any_running_subscription_is_chosen,
        held_usage_is_merged_by_day,
        identities_are_forgotten_two_hours_early,
        the_horizon_is_an_hour_too_long,
        cents_are_rounded_in_every_event,
        a_write_off_leaves_out_merged_windows,
        the_kind_of_an_id_is_ignored,
        a_move_applies_to_earlier_usage,
        an_ended_subscription_is_billed,
        a_backfilled_row_is_not_recognised_as_a_copy,
        the_log_is_searched_by_identity_alone,
        identities_are_not_stored,
        a_named_subscription_is_not_checked,
        an_answer_of_the_api_is_not_recorded,
        events_after_an_end_stay_at_the_ended_subscription,
        events_after_an_end_are_posted_with_their_old_time,
        every_event_stored_after_an_end_is_late,
        nothing_is_late_for_a_last_invoice,
        a_missing_invoice_counts_as_an_empty_one,
        ids_decide_what_was_counted_within_a_second,
        one_unclear_second_makes_the_whole_invoice_unclear,
        the_sum_of_a_last_invoice_is_ignored,
        the_oldest_kept_version_decides_about_held_usage,
        the_sink_moves_late_events_under_every_policy,
        the_card_of_the_arrival_prices_a_call,
        the_payers_factor_applies_twice,
        the_minimum_comes_before_markup_and_factors,
        cached_tokens_are_billed_as_input_too,
        a_call_priced_by_a_card_is_billed_again_with_a_cost,
        held_usage_has_no_factor,
    )
}
