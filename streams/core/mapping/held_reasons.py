"""Every reason for which usage is held; each rule that holds usage is in a module beside this one."""

from typing import Final

# No version of the mapping covers the call (versions.py).
NO_MAPPING = "no_mapping"
INACTIVE = "inactive"
WRONG_KIND = "id_kind_not_mapped"
#: The version of that time was dropped.
NOT_KEPT = "mapping_not_kept"

# No subscription of the org bills the call (subscription_choice.py).
NO_SUBSCRIPTION = "no_subscription"
#: Several subscriptions charge the metric, and none of them is the org's own.
AMBIGUOUS = "ambiguous"
#: The mapping names a subscription that Lago does not have, or that belongs to another customer.
UNKNOWN_SUBSCRIPTION = "unknown_subscription"
FOREIGN_SUBSCRIPTION = "foreign_subscription"

# The subscription does not bill the call at its time (billing_periods.py).
ENDED = "ended"
#: None of its plans charges the metric.
NO_CHARGE = "no_charge"
#: The plans that charge it read our cents in another currency.
WRONG_CURRENCY = "currency"

# With OUT_OF_PERIOD_POLICY=hold (resolve.py).
#: Before the subscription began.
OUTSIDE_PERIOD = "outside_period"
#: In a billing period that was invoiced.
LATE_PERIOD = "late_period"

#: The version of the rate card is not in `billing.rates` any more, so the factor is unknown (resolve.py).
UNKNOWN_RATE = "unknown_rate"
#: This deployment has no access to the Lago organisation of the org (organizations.py).
UNKNOWN_ORGANIZATION = "unknown_organization"

HELD_REASONS: Final = (
    *(NO_MAPPING, INACTIVE, NO_SUBSCRIPTION, WRONG_KIND, WRONG_CURRENCY, OUTSIDE_PERIOD, LATE_PERIOD, ENDED),
    *(NOT_KEPT, NO_CHARGE, AMBIGUOUS, UNKNOWN_SUBSCRIPTION, FOREIGN_SUBSCRIPTION, UNKNOWN_RATE, UNKNOWN_ORGANIZATION),
)
