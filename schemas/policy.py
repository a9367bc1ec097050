"""How calls are metered: the operator's choices, handed to the pure rules as one frozen value."""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from schemas.moments import HOUR_US, SECOND_US


class LatePolicy(Enum):
    """What happens to usage outside every period of its subscription."""

    SHIFT = "shift"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class MeterPolicy:
    """All that decides what is billed, when and in which event.

    Fields (durations in microseconds, as the moments they are added to):
        deployment: first part of every transaction id; two deployments never share one.
        window_us: length of a window; 0 = one Lago event a call.
        grace_us: how long after its end a window waits for late calls.
        quiet_us, late_us: an already old window is sealed once quiet for the first, at the latest
            after the second.
        horizon_us: how far back a repeated call is recognised.
        group_by: extra `Usage` fields in a window's key, `schemas.usage.GROUP_FIELDS`.
        bill_cache_hits, bill_byok, bill_own_subscriptions, bill_silent_experiments: whether such calls are folded.
        max_usd_per_call, max_usd_per_token: dollars above which a cost is no price of any model and is kept aside.
        event_code: the billable metric's code in Lago.
        coalesce_us: age after which held windows become one a customer, model and stretch.
        max_held_metered: other metered events a partition holds, none of which can become one with another.
        max_open: open windows a partition keeps, 1.2 kB each; beyond it some are sealed early (streams/core/metering/early_close.py).
    """

    deployment: str = "meterbridge"
    window_us: int = 60 * SECOND_US
    grace_us: int = 5 * SECOND_US
    quiet_us: int = 2 * SECOND_US
    late_us: int = 60 * SECOND_US
    horizon_us: int = 24 * HOUR_US
    group_by: tuple[str, ...] = ()
    cost_decimals: int = 12
    bill_cache_hits: bool = False
    bill_byok: bool = True
    late_policy: LatePolicy = LatePolicy.SHIFT
    event_code: str = "ai_usage"
    coalesce_us: int = HOUR_US
    max_held_metered: int = 20_000
    bill_own_subscriptions: bool = False
    bill_silent_experiments: bool = False
    max_usd_per_call: Decimal = Decimal(1000)
    max_usd_per_token: Decimal = Decimal(10)
    max_open: int = 50_000
