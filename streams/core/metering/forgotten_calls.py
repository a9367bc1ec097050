"""Which calls may be counted and forgotten: older ones than the identities that are kept, and those of a ledger that was lost. Pure."""

from schemas.ledger import Position
from schemas.moments import HOUR_US
from schemas.policy import MeterPolicy
from schemas.usage import Usage
from streams.core.metering.batch_identities import JOB_HORIZON_US
from streams.core.metering.normalise import FUTURE_US


def oldest_us(policy: MeterPolicy, clock_ms: int, position: Position) -> int:
    """A call that ended before this may repeat a forgotten one, microseconds since 1970 UTC: the dedupe retention with a margin of an hour.

    Identities that a shorter horizon dropped stay forgotten under a longer one. Calls that ended before `forgot_us`
    may have been counted by a ledger that is lost.
    """
    return max(_kept_from_us(policy, clock_ms, position), position.forgot_us)


def may_be_forgotten(usage: Usage, policy: MeterPolicy, clock_ms: int, position: Position) -> bool:
    """Whether the call may have been counted and forgotten since.

    The usage log may have vouched for it (`checked_us`). A lost ledger counted nothing after `forgot_us` without `FUTURE_US`, by which the
    clocks of senders may be ahead: a check after that is one of all that it counted. Jobs are remembered longer than calls; those of a
    lost ledger are forgotten, too.
    """
    kept_us = _kept_from_us(policy, clock_ms, position)
    if usage.job is usage.identity:
        kept_us = min(kept_us, clock_ms * 1000 - JOB_HORIZON_US + HOUR_US)
    if usage.end_us < kept_us and usage.checked_us < kept_us:
        return True
    return usage.end_us < position.forgot_us and usage.checked_us < position.forgot_us - FUTURE_US


def _kept_from_us(policy: MeterPolicy, clock_ms: int, position: Position) -> int:
    kept_us: int = max(clock_ms * 1000 - policy.dedupe_retention_us, position.dropped_hour * HOUR_US)
    return kept_us + HOUR_US
