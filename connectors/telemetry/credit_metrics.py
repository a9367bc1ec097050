"""The metrics of prepaid credits and their sale."""

from connectors.telemetry.metric_definitions import counter, gauge
from schemas.reasons import STRIPE_OUTCOMES, UNDEBITED


class CreditMetrics:
    """A part of `connectors.telemetry.metrics.Metrics`."""

    credit_overdraft = gauge(
        "meterbridge_credits_overdraft_usd", "Dollars that prepaid accounts have used beyond their balance (project)."
    )
    credits_undebited = counter(
        "meterbridge_credits_undebited_calls_total",
        "Calls that name a prepaid account which is not debited for them: client_chose_user: only the client names the user; "
        "others_reservation: the reservation with the call's id is another account's (project).",
        reason=UNDEBITED,
    )
    credit_reservations = gauge(
        "meterbridge_credit_reservations_open",
        "Reservations of credits that are neither settled nor released (project).",
    )
    credit_imbalance = gauge(
        "meterbridge_credits_imbalance_usd",
        "Dollars by which balances differ from their grants, and ledger transactions from zero; always 0 (project).",
    )
    credit_upkeep_failures = counter(
        "meterbridge_credit_upkeep_failures_total",
        "Rounds in which expired credits and reservations were not ended: Postgres lacks a table or a right (project).",
    )
    stripe_events = counter(
        "meterbridge_stripe_events_total",
        "Events of Stripe's webhook by result, or by the reason why a payment gave no credits (api).",
        outcome=STRIPE_OUTCOMES,
    )
