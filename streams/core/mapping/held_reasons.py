"""All reasons for which usage is held. Each is a constant beside the rule that holds it."""

from typing import Final

from streams.core.mapping.billing_periods import ENDED, NO_CHARGE, WRONG_CURRENCY
from streams.core.mapping.organizations import UNKNOWN_ORGANIZATION
from streams.core.mapping.resolve import LATE_PERIOD, OUTSIDE_PERIOD, UNKNOWN_RATE
from streams.core.mapping.subscription_choice import (
    AMBIGUOUS,
    FOREIGN_SUBSCRIPTION,
    NO_SUBSCRIPTION,
    UNKNOWN_SUBSCRIPTION,
)
from streams.core.mapping.versions import INACTIVE, NO_MAPPING, NOT_KEPT, WRONG_KIND

HELD_REASONS: Final = (
    *(NO_MAPPING, INACTIVE, NO_SUBSCRIPTION, WRONG_KIND, WRONG_CURRENCY, OUTSIDE_PERIOD, LATE_PERIOD, ENDED),
    *(NOT_KEPT, NO_CHARGE, AMBIGUOUS, UNKNOWN_SUBSCRIPTION, FOREIGN_SUBSCRIPTION, UNKNOWN_RATE, UNKNOWN_ORGANIZATION),
)
