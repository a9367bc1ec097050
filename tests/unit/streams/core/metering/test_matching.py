"""Whether a copy is a call of the usage log, and whether it must be billed: the rule alone."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy
from streams.core.metering.call_meaning import SEALED
from streams.core.metering.decisions import (
    BILLABLE,
    BYOK,
    CACHE_HIT,
    CARRIED,
    FAILED_CALL,
    FAILED_WITH_COST,
    LOST,
    REJECTED,
    UNPRICED,
    ZERO_COST,
)
from streams.core.metering.identity import identity_of
from streams.core.metering.matching import (
    KNOWN,
    MISSING,
    NOISE,
    OTHER_COST,
    PRICED,
    UNCLEAR,
    LoggedCall,
    LoggedDetails,
    nameless,
    same_call,
    verdict,
)
from tests.support.calls import NOON

HOUR_US = 3_600_000_000
POLICY = MeterPolicy()
MONEY = st.decimals(0, 1000, places=6)


def copy(**fields: Any) -> Usage:
    base = {
        "identity": b"copy",
        "customer_id": "acme",
        "id_kind": "end_user",
        "status": "success",
        "start_us": NOON,
        "end_us": NOON,
        "model": "m",
        "provider": "p",
        "tokens_input": 1,
        "tokens_output": 1,
        "total_tokens": 2,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "cost": Decimal(2),
        "call_id": "call",
        "request_id": "req",
    }
    return Usage(**{**base, **fields})


def logged_call(**fields: Any) -> LoggedCall:
    base = {
        "identity": b"row",
        "decision": BILLABLE,
        "status": "success",
        "cost": Decimal(2),
        "billed": True,
        "customer_id": "acme",
        "id_kind": "end_user",
        "model": "m",
        "call_id": "call",
        "request_id": "req",
        "start_us": NOON + 123,
    }
    return LoggedCall(**{**base, **fields})


def test_two_equal_ids_name_one_call_for_any_distance_of_their_starts() -> None:
    """LiteLLM's database had local times until early 2025."""
    assert same_call(copy(start_us=NOON + 5 * HOUR_US), logged_call()) is True


def test_two_calls_with_one_chosen_call_id_and_one_request_id_stay_two() -> None:
    """Both have microseconds, so both were reported by LiteLLM's callbacks themselves."""
    assert same_call(copy(start_us=NOON + HOUR_US + 7), logged_call()) is False


@pytest.mark.parametrize(
    ("ids", "apart_us", "answer"),
    [
        (("", "req"), 2000, True),
        (("", "req"), 2001, None),
        (("", "req_cache_hit1795215634.42"), 0, True),
        (("", "other"), 0, False),
        (("", ""), 0, False),
        (("", "None"), 0, False),
        (("other", "req"), 0, False),
    ],
)
def test_without_a_call_id_the_request_id_and_the_start_decide(
    ids: tuple[str, str], apart_us: int, answer: bool | None
) -> None:
    call_id, request_id = ids
    row = logged_call(request_id="None" if request_id == "None" else "req")
    result = copy(call_id=call_id, request_id=request_id, start_us=row.start_us + apart_us)
    assert same_call(result, row) is answer


def test_a_call_of_a_litellm_without_call_ids_is_found_by_a_later_version() -> None:
    assert same_call(copy(start_us=NOON), logged_call(call_id="")) is True


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"start_us": NOON + 2 * HOUR_US + 300_000}, True),
        ({"start_us": NOON + 2 * HOUR_US + 300_000, "cost": Decimal(3)}, True),
        ({"request_id": "call", "start_us": NOON + 2 * HOUR_US + 300_000}, True),
        ({"request_id": "call", "status": "failure", "start_us": NOON + 2 * HOUR_US}, False),
        ({"request_id": "call", "start_us": NOON + 3 * HOUR_US}, False),
        ({"start_us": NOON + 3 * HOUR_US}, False),
        ({"start_us": NOON - 3000}, False),
        ({"request_id": "random", "id_kind": "subscription", "start_us": NOON + 2 * HOUR_US + 300_000}, None),
        (
            {"request_id": "random", "id_kind": "subscription", "start_us": NOON + 2 * HOUR_US, "cost": Decimal(3)},
            False,
        ),
        (
            {"request_id": "random", "id_kind": "subscription", "start_us": NOON + 2 * HOUR_US, "customer_id": "b"},
            False,
        ),
        ({"request_id": "random", "id_kind": "subscription", "start_us": NOON + HOUR_US}, False),
        ({"request_id": "random", "id_kind": "subscription", "start_us": NOON + 3 * HOUR_US}, False),
        ({"request_id": "random", "start_us": NOON + 2 * HOUR_US}, False),
    ],
)
def test_a_call_reported_by_another_callback_is_found_by_its_id_or_is_unclear(
    row: dict[str, Any], answer: bool | None
) -> None:
    """A call of two hours: `openmeter` reported it with its request id, `lago` with a random one."""
    assert same_call(copy(end_us=NOON + 2 * HOUR_US), logged_call(call_id="", **row)) is answer


def test_two_calls_with_equal_time_and_id_may_be_two() -> None:
    """Some providers repeat their ids; neither is LiteLLM's own row, whose request id is unique."""
    assert same_call(copy(call_id=""), logged_call(call_id="", start_us=NOON + HOUR_US // 12)) is None


@pytest.mark.parametrize("ending", ["_batch_cost", "_background_cost", "_video_cost"])
def test_litellms_own_row_about_a_job_is_the_polled_job(ending: str) -> None:
    row = logged_call(request_id="batch_1", call_id="poll-7")
    assert same_call(copy(request_id=f"batch_1{ending}", call_id="x", start_us=NOON + 9 * HOUR_US), row) is True
    assert same_call(copy(request_id="batch_1", call_type="aretrieve_batch", call_id="y", start_us=0), row) is True


def test_an_id_that_many_calls_share_is_not_used() -> None:
    assert nameless(copy(call_id="", request_id="None"))
    assert not nameless(copy(call_id="", request_id="r"))
    assert not nameless(copy(call_id="c", request_id="None"))


def test_a_call_without_a_match_is_missing_and_with_a_possible_match_is_unclear() -> None:
    assert verdict(copy(), [], POLICY).word == MISSING
    late = logged_call(start_us=NOON + HOUR_US)
    assert verdict(copy(call_id=""), [late], POLICY).word == UNCLEAR
    assert verdict(copy(call_id=""), [late, logged_call()], POLICY).word == KNOWN


@pytest.mark.parametrize("decision", [LOST, REJECTED])
def test_a_call_lost_before_it_was_billed_is_sent_and_one_billed_elsewhere_is_not(decision: str) -> None:
    """A rebuilt ledger has rejected a call that the lost one had counted: its dead letter can be requeued."""
    lost = logged_call(decision=decision, billed=False)
    assert verdict(copy(), [lost], POLICY) == (PRICED, lost)
    assert verdict(copy(cost=Decimal(0)), [lost], POLICY).word == KNOWN
    assert verdict(copy(), [lost, logged_call()], POLICY).word == KNOWN
    assert verdict(copy(), [logged_call(decision=ZERO_COST, billed=False), lost], POLICY) == (PRICED, lost)


@pytest.mark.parametrize("decision", [UNPRICED, ZERO_COST, FAILED_CALL])
def test_a_call_counted_without_a_price_must_be_billed_once_a_copy_has_one(decision: str) -> None:
    row = logged_call(decision=decision, billed=False, cost=Decimal(0))
    assert verdict(copy(), [row], POLICY) == (PRICED, row)
    assert verdict(copy(cost=Decimal(0)), [row], POLICY).word == KNOWN
    assert verdict(copy(), [row, logged_call()], POLICY).word == KNOWN


@pytest.mark.parametrize("decision", [BYOK, CACHE_HIT])
def test_a_price_changes_only_a_decision_about_the_price(decision: str) -> None:
    """The database does not say whose provider key paid."""
    assert verdict(copy(), [logged_call(decision=decision, billed=False, cost=Decimal(0))], POLICY).word == KNOWN


@given(billed=MONEY, reported=MONEY)
def test_a_billed_call_is_never_sent_again_and_every_different_cost_is_reported(
    billed: Decimal, reported: Decimal
) -> None:
    word = verdict(copy(cost=reported), [logged_call(cost=billed)], POLICY).word
    assert word == (OTHER_COST if reported and abs(reported - billed) > NOISE else KNOWN)


@given(reported=MONEY, costs=st.lists(st.tuples(MONEY, st.booleans()), max_size=5))
def test_a_call_is_sent_only_if_nothing_of_it_is_billed(reported: Decimal, costs: list[tuple[Decimal, bool]]) -> None:
    rows = [logged_call(cost=c, billed=b, decision=BILLABLE if b else UNPRICED) for c, b in costs]
    word = verdict(copy(cost=reported), rows, POLICY).word
    assert not any(row.billed for row in rows) or word in (KNOWN, OTHER_COST)
    assert (word == MISSING) is not bool(rows)
    assert (word == PRICED) == bool(rows and reported and not any(row.billed for row in rows))


@pytest.mark.parametrize("rows", [(), (logged_call(decision=ZERO_COST, billed=False, cost=Decimal(0)),)])
def test_a_poll_without_a_job_is_never_sent_on_a_guess(rows: tuple[LoggedCall, ...]) -> None:
    """Another poll of the same response, under another id, may have been billed."""
    assert verdict(copy(note=SEALED), rows, POLICY).word == UNCLEAR
    assert verdict(copy(note=SEALED), [logged_call()], POLICY).word == KNOWN


def test_a_read_without_cost_under_an_encrypted_id_is_never_unclear() -> None:
    """With a database LiteLLM makes reads of a background response free, and keeps a row of each: recorded by `make
    trial` with 1.110.2. Refused rows made every backfill and every check fail.
    """
    free = copy(note=SEALED, cost=Decimal(0), call_type="aget_responses", request_id="resp_" + "x" * 200)
    counted_free = logged_call(decision=UNPRICED, cost=Decimal(0), billed=False, request_id=free.request_id)
    assert verdict(free, [counted_free], POLICY).word == KNOWN
    assert verdict(free, [], POLICY).word == MISSING


@pytest.mark.parametrize(
    ("billed", "word"), [("2", KNOWN), ("1.5", KNOWN), ("1.7", KNOWN), ("1.4", OTHER_COST), ("2.1", OTHER_COST)]
)
def test_the_log_may_have_a_success_without_what_its_failed_attempts_have_cost(billed: str, word: str) -> None:
    """Or without a part of it: the report of one attempt may be lost."""
    row = logged_call(cost=Decimal(billed))
    assert verdict(copy(carried=Decimal("0.5")), [row], POLICY).word == word


def test_a_failed_attempt_that_is_billed_with_its_success_is_not_sent_again() -> None:
    row = logged_call(decision=CARRIED, status="failure", billed=False)
    assert verdict(copy(status="failure"), [row], POLICY) == (KNOWN, row)


def test_a_timed_out_request_has_a_cost_only_in_the_database_and_each_attempt_is_sent_once() -> None:
    """LiteLLM 1.110 estimates it there: one row for the request, one for each earlier attempt that timed out."""
    told = logged_call(decision=FAILED_CALL, status="failure", cost=Decimal(0), billed=False, request_id="call")
    request = copy(status="failure", request_id="call")
    attempt = copy(status="failure", call_id="call-attempt-0", request_id="call-attempt-0", identity=b"attempt")
    assert verdict(request, [told], POLICY) == (PRICED, told)
    assert verdict(attempt, [told], POLICY).word == MISSING
    sent = [
        logged_call(decision=FAILED_WITH_COST, status="failure", request_id="call"),
        logged_call(decision=FAILED_WITH_COST, status="failure", call_id="call-attempt-0", request_id="call-attempt-0"),
    ]
    assert verdict(request, [told, *sent], POLICY).word == KNOWN
    assert verdict(attempt, [told, *sent], POLICY).word == KNOWN


@pytest.mark.parametrize(
    ("details", "bill_byok", "word"),
    [
        (LoggedDetails(byok=True), False, KNOWN),
        (LoggedDetails(byok=True), True, PRICED),
        (LoggedDetails(), False, PRICED),
        (None, False, PRICED),
    ],
)
def test_a_price_of_a_call_on_a_users_own_key_is_not_sent_if_the_meter_would_not_bill_it(
    details: LoggedDetails | None, bill_byok: bool, word: str
) -> None:
    """Earlier each `backfill` sent it and said that it was priced, and each `reconcile --litellm` asked for that."""
    row = logged_call(decision=UNPRICED, cost=Decimal(0), billed=False, details=details)
    assert verdict(copy(), [row], replace(POLICY, bill_byok=bill_byok)).word == word


@pytest.mark.parametrize("status", ["success", ""])
@pytest.mark.parametrize("database_first", [True, False])
def test_a_call_whose_sender_gave_no_start_is_found_by_two_equal_ids(status: str, *, database_first: bool) -> None:
    """Its start is that of its receipt, in microseconds: so two precise starts prove nothing."""
    untimed = identity_of("litellm", "call", "req", status, "")
    row = logged_call() if database_first else logged_call(identity=untimed)
    one = copy(identity=untimed) if database_first else copy()
    one.start_us = NOON + HOUR_US + 7
    assert same_call(one, row) is True
