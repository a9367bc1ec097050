"""Decides which calls may have been counted and forgotten: calls older than the remembered identities, and calls of a
lost ledger. Pure.
"""

from schemas.ledger import Position
from schemas.moments import HOUR_US
from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy
from streams.core.metering.batch_identities import JOB_HORIZON_US
from streams.core.metering.normalise import FUTURE_US


def oldest_us(policy: MeterPolicy, clock_ms: int, position: Position) -> int:
    """Return the moment before which a call may repeat a forgotten one, microseconds since 1970 UTC.

    It is given by the dedupe retention with a margin of an hour. Identities that a shorter retention dropped stay
    forgotten under a longer one. A lost ledger may have counted calls that ended before `forgot_us`.
    """
    return max(_kept_from_us(policy, clock_ms, position), position.forgot_us)


def may_be_forgotten(usage: Usage, policy: MeterPolicy, clock_ms: int, position: Position) -> bool:
    """Return whether the call may have been counted and forgotten.

    A check in the usage log (`checked_us`) can exclude it. A lost ledger counted nothing after `forgot_us` minus
    `FUTURE_US`, by which the clocks of senders may be ahead. So a check after that moment covers all calls of that
    ledger. Jobs are remembered longer than calls; jobs of a lost ledger are forgotten, too.
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
