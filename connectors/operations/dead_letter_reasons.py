"""The reasons that letters die of, for whoever names one: a misspelt reason must not pass for "nothing is dead"."""

import re
from difflib import get_close_matches
from typing import Final

from connectors.config.deployment import Deployment
from connectors.operations.dead_letters import KINDS, Filters, unresolved

#: Those that the product gives by itself (docs/errors.md); Lago's own codes come beside them.
KNOWN: Final = frozenset(
    [
        "absurd_cost",
        "contradicting_cost",
        "contradicting_customer",
        "cost_differs",
        "implausible_cost",
        "not_a_call",
        "bad_cost",
        "bad_event",
        "bad_number",
        "bad_time",
        "bad_tokens",
        "beyond_horizon",
        "negative_cost",
        "no_identity",
        "not_an_object",
        "not_json",
        "too_complex",
        "too_deep",
        "too_large",
        "too_many_elements",
        "too_many_held",
        "unknown_shape",
        "unknown_version",
        "unreadable",
        "wrong_type",
        "bad_answer",
        "bad_request",
        "connect",
        "dying_alike",
        "ended",
        "expression_evaluation_failed",
        "id_conflict",
        "invoiced_period",
        "invalid_timestamp",
        "lago_refused",
        "lock_acquisition_failed",
        "malformed",
        "missing_code",
        "missing_transaction_id",
        "no_answer",
        "no_charge",
        "not_lago",
        "timeout",
        "unconfirmed",
    ]
)
_OF_HTTP: Final = re.compile(r"http_\d{3}")


def unknown_reason(deployment: Deployment, kind: str, reason: str) -> str:
    """A sentence about a reason that neither the product nor any letter has; `""` for every other.

    Raises: see `unresolved`.
    """
    if not reason or reason in KNOWN or _OF_HTTP.fullmatch(reason):
        return ""
    kinds = [one for one in KINDS if kind in ("both", one)]
    found = {letter.reason for one in kinds for letter in unresolved(deployment, one, Filters())}
    if reason in found:
        return ""
    known = sorted(KNOWN | found)
    near = get_close_matches(reason, known, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"no letter has the reason {reason!r}: {meant}Reasons are {', '.join(known)}."
