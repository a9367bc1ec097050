"""The operator's settings for metering, as one frozen value for the pure rules."""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from schemas.moments import HOUR_US, SECOND_US


class OutOfPeriodPolicy(Enum):
    """The treatment of usage outside all periods of its subscription."""

    SHIFT = "shift"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class MeterPolicy:
    """All settings that decide which usage is billed, when, and in which event.

    Fields (durations in microseconds, like the moments to which they are added):
        deployment: first part of every transaction id; no two deployments may share one.
        window_us: length of a window; 0 = one Lago event a call.
        grace_us: how long after its end a window waits for late calls.
        quiet_us, late_us: a window of the past is sealed when no call has come for `quiet_us`, and at the latest after
        `late_us`. dedupe_retention_us: how far back a repeated call is recognised. group_by: extra `Usage` fields in a
        window's key, out of `schemas.normalised_call.GROUP_FIELDS`. cost_decimals: decimals of a dollar to which a cost is
        rounded. bill_cache_hits, bill_byok, bill_own_subscriptions, bill_silent_experiments: whether such calls are
        billed. max_usd_per_call, max_usd_per_token: dollars above which a cost is implausible, so that the call is
        rejected. event_code: the billable metric's code in Lago. coalesce_us: age at which held windows are merged: one
        remains for each customer, model and time span. max_held_metered: the most other metered events that a partition
        holds; they cannot be merged. max_open: the most open windows of a partition, 1.2 kB each. If there are more,
        some are sealed early
            (streams/core/metering/early_close.py).
        organizations: the further Lago organisations to which events may be sent.
    """

    deployment: str = "meterbridge"
    window_us: int = 60 * SECOND_US
    grace_us: int = 5 * SECOND_US
    quiet_us: int = 2 * SECOND_US
    late_us: int = 60 * SECOND_US
    dedupe_retention_us: int = 24 * HOUR_US
    group_by: tuple[str, ...] = ()
    cost_decimals: int = 12
    bill_cache_hits: bool = False
    bill_byok: bool = True
    out_of_period_policy: OutOfPeriodPolicy = OutOfPeriodPolicy.SHIFT
    event_code: str = "ai_usage"
    coalesce_us: int = HOUR_US
    max_held_metered: int = 20_000
    bill_own_subscriptions: bool = False
    bill_silent_experiments: bool = False
    max_usd_per_call: Decimal = Decimal(1000)
    max_usd_per_token: Decimal = Decimal(10)
    max_open: int = 50_000
    organizations: tuple[str, ...] = ()
