"""A call that may have been counted and forgotten is counted only after the usage log was asked about it."""

from decimal import Decimal

import pytest

from schemas.ledger import Position
from schemas.moments import HOUR_US, SECOND_US
from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy
from streams.core.metering.batch_identities import JOB_HORIZON_US
from streams.core.metering.forgotten_calls import may_be_forgotten, oldest_us
from streams.core.metering.normalise import FUTURE_US

NOW_US = 1_795_176_000 * SECOND_US
POLICY = MeterPolicy()
KEPT_US = NOW_US - POLICY.dedupe_retention_us + HOUR_US
#: The ledger was lost now.
LOST = Position(forgot_us=NOW_US + FUTURE_US)


def call(end_us: int, checked_us: int = 0, *, job: bool = False) -> Usage:
    identity = b"i" * 16
    usage = Usage(identity, "", "", "success", end_us, end_us, "", "", 0, 0, 0, 0, 0, Decimal(0))
    usage.checked_us = checked_us
    if job:
        usage.job = identity
    return usage


def forgotten(usage: Usage, position: Position) -> bool:
    return may_be_forgotten(usage, POLICY, NOW_US // 1000, position)


@pytest.mark.parametrize(
    ("ended_us", "checked_us", "unknown"),
    [(KEPT_US - 1, 0, True), (KEPT_US, 0, False), (KEPT_US - 1, KEPT_US - 1, True), (KEPT_US - 1, KEPT_US, False)],
)
def test_a_call_older_than_the_kept_identities_needs_a_check_made_since_then(
    ended_us: int, checked_us: int, *, unknown: bool
) -> None:
    assert forgotten(call(ended_us, checked_us), Position()) is unknown


@pytest.mark.parametrize(
    ("ended_us", "checked_us", "unknown"),
    [
        (NOW_US + FUTURE_US - 1, 0, True),
        (NOW_US + FUTURE_US, 0, False),
        (NOW_US - 1, NOW_US - 1, True),
        (NOW_US - 1, NOW_US, False),
        (NOW_US + FUTURE_US - 1, NOW_US, False),
    ],
)
def test_after_the_loss_of_a_ledger_later_calls_of_a_sender_with_a_fast_clock_need_a_check_too(
    ended_us: int, checked_us: int, *, unknown: bool
) -> None:
    """Such calls had been counted before the loss: the usage log, asked after the loss, knows all of them."""
    assert forgotten(call(ended_us, checked_us), LOST) is unknown


def test_a_check_after_a_loss_does_not_cover_calls_dropped_since() -> None:
    """Yesterday's check says nothing about a copy that was counted this morning and then dropped."""
    lost_earlier = Position(forgot_us=KEPT_US + SECOND_US)
    assert forgotten(call(KEPT_US - 1, KEPT_US - FUTURE_US + SECOND_US), lost_earlier)


def test_a_job_is_remembered_longer_but_not_by_a_lost_ledger() -> None:
    assert not forgotten(call(KEPT_US - 1, job=True), Position())
    assert forgotten(call(NOW_US - JOB_HORIZON_US, job=True), Position())
    assert forgotten(call(NOW_US, job=True), LOST)


@pytest.mark.parametrize("position", [Position(), LOST, Position(dropped_hour=NOW_US // HOUR_US)])
def test_a_call_that_ended_after_the_oldest_kept_identity_is_never_forgotten(position: Position) -> None:
    """The meter asks only for earlier calls."""
    assert not forgotten(call(oldest_us(POLICY, NOW_US // 1000, position)), position)
