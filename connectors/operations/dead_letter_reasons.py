"""Lists the reasons of dead letters. A misspelt reason must be reported, because an empty result would look like
success.
"""

import re
from typing import Final

from connectors.config.deployment import Deployment
from connectors.operations.dead_letters import Filters, found_letters
from connectors.operations.near_names import did_you_mean
from schemas.reasons import INGRESS_REASONS, INGRESS_RULE_REASONS

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
    known = sorted(KNOWN | reasons)
    meant = f"{did_you_mean(reason[:_SHOWN], known)} ".lstrip()
    return f"no dead letter has the reason {reason[:_SHOWN]!r}: {meant}Reasons are {', '.join(known)}."
