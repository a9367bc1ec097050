"""Decides whether a mapping request corrects the version before it, or follows it; pure (docs/adr/0019).

A correction replaces the version from the version's own beginning on. So usage that was held under the mistake goes to
the correct org. Billed usage stays billed, because a window never changes its subscription.
"""

from collections.abc import Collection

from schemas.customers import CustomerRecord, MappingVersion
from schemas.errors import Rejected

BEGINS_ELSEWHERE = "correction_begins_elsewhere"


def corrected(
    record: CustomerRecord | None,
    in_force: MappingVersion | None,
    *,
    correct: bool | None,
    effective_from: int | None,
    unknown: Collection[str],
) -> MappingVersion | None:
    """Return the version that the request replaces; None if the request is a change from its own beginning on.

    Args:
        in_force: the record's version at the earliest moment at which a change could apply.
        correct: the request's own statement: True = it corrects; False = it does not; None = it corrects only an
            obvious mistake.
        effective_from: the beginning in the request, a whole second; None = it names none.
        unknown: orgs without a record that Lago does not know.

    Raises:
        Rejected: `correction_begins_elsewhere`: the request is a correction, and names another beginning.
    """
    if record is None or in_force is None or correct is False:
        return None
    if correct:
        if effective_from not in (None, in_force.effective_from):
            raise Rejected(BEGINS_ELSEWHERE, "a correction begins with the version that it corrects")
        return in_force
    # A version with a subscription may have billed usage already, because Lago bills by the subscription alone.
    mistaken = in_force.is_active and not in_force.external_subscription_id and in_force.lago_customer_id in unknown
    return in_force if mistaken and effective_from in (None, in_force.effective_from) else None
