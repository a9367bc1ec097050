"""Lists the reasons of dead letters. A misspelt reason must be reported, because an empty result would look like
success.
"""

import re
from typing import Final

from connectors.config.deployment import Deployment
from connectors.operations.dead_letters import Filters, found_letters
from connectors.operations.near_names import did_you_mean
from schemas.reasons import INGRESS_REASONS, INGRESS_RULE_REASONS
from streams.core.mapping.held_reasons import HELD_REASONS
from streams.core.metering.decisions import UNBILLED

#: Reasons of the meter alone.
_OF_METER: Final = ("beyond_horizon", "cost_differs", "implausible_cost", "too_many_held")
#: Reasons of events that failed.
_OF_EVENTS: Final = (
    *("bad_answer", "bad_request", "connect", "currency", "dying_alike", "ended", "expression_evaluation_failed"),
    *("id_conflict", "invalid_timestamp", "invoiced_period", "lago_refused", "lock_acquisition_failed", "missing_code"),
    *("missing_transaction_id", "no_answer", "no_charge", "not_lago", "timeout", "unconfirmed"),
)
#: The product's own reasons (docs/errors.md). Dead letters can also have Lago's codes as reasons.
KNOWN: Final = frozenset({*INGRESS_REASONS, *INGRESS_RULE_REASONS, *_OF_METER, *_OF_EVENTS})
_OF_HTTP: Final = re.compile(r"http_\d{3}")
#: How many characters of an unknown reason are repeated. Over HTTP it may be as long as a body.
_SHOWN: Final = 60


def unknown_reason(deployment: Deployment, kind: str, reason: str) -> str:
    """Return a sentence if neither the product nor any dead letter has the reason, otherwise `""`.

    Raises: see `unresolved`.
    """
    if not reason or reason in KNOWN or _OF_HTTP.fullmatch(reason):
        return ""
    reasons = {dead_letter.reason for dead_letter in found_letters(deployment, kind, Filters())}
    if reason in reasons:
        return ""
    return f"no dead letter has the reason {_what_it_is(reason[:_SHOWN], sorted(KNOWN | reasons))}"


def unknown_held_reason(reason: str) -> str:
    """Return a sentence if no usage is held for the reason, otherwise `""`."""
    return "" if reason in ("", *HELD_REASONS) else f"no usage is held for {_what_it_is(reason, sorted(HELD_REASONS))}"


def _what_it_is(reason: str, known: list[str]) -> str:
    """Return the end of a sentence about a reason that is not `known` in a list: where it is known, or what may be meant."""
    if reason in HELD_REASONS:
        return f"{reason!r}: usage is held for it, see `meterbridge held list --reason {reason}`."
    if reason in UNBILLED:
        return f"{reason!r}: counted calls are not billed for it, see `meterbridge reconcile`."
    if reason in KNOWN:
        return f"{reason!r}: dead letters have it, see `meterbridge dlq list --reason {reason}`."
    meant = f"{did_you_mean(reason, known)} ".lstrip()
    return f"{reason!r}: {meant}Reasons are {', '.join(known)}."
