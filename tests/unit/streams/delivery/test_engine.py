"""Delivery with a scripted Lago, in virtual time: what is posted, and the outcomes."""

import asyncio

import pytest

from streams.core.delivery.batches import EventOutcome, Item
from streams.core.delivery.circuit_breaker import Breaker
from streams.core.delivery.maybe_sent import lago_may_have
from streams.core.delivery.rate_limiter import AdaptiveRateLimiter
from streams.core.delivery.restamp import RestampDecision
from tests.support.scripted_lago import EXISTS, ScriptedLago, event, item
from tests.support.sink import POLICY, Sink, deliver, first, kinds_and_reasons
from tests.support.virtual_time import run_virtually, virtual_now


def test_without_events_nothing_is_posted() -> None:
    lago = ScriptedLago()
    assert deliver(lago, []) == []
    assert lago.posts == []


def test_events_are_posted_unchanged_in_full_batches_and_every_post_is_reported() -> None:
    lago = ScriptedLago()
    items = [item(f"t{n}", padding=n) for n in range(250)]

    async def main() -> None:
        sink = Sink(lago)
        outcomes = await sink.delivery.deliver(items)
        assert outcomes == [EventOutcome("delivered", "accepted", "", 1)] * 250
        assert [request[:3] for request in sink.requests] == [("post_batch", "POST", 200)] * 3
        assert [request[3] for request in sink.requests] == pytest.approx([0.01] * 3)

    run_virtually(main())
    assert [len(ids) for ids in lago.posts] == [100, 100, 50]
    assert all(items[n].value in lago.bodies[n // 100] for n in range(250))


def test_no_more_requests_run_at_once_than_there_are_permits() -> None:
    lago = ScriptedLago(fault=lambda number, _ids: "500 after storing" if number % 3 == 0 else None)

    async def main() -> None:
        permits = asyncio.Semaphore(2)
        breaker = Breaker(POLICY)
        partition_tasks = [Sink(lago, breaker, permits, batch_size=5).delivery for _ in range(3)]
        await asyncio.gather(
            *(
                partition_task.deliver([item(f"{n}-{m}") for m in range(40)])
                for n, partition_task in enumerate(partition_tasks)
            )
        )

    run_virtually(main())
    assert lago.most_in_flight == 2
    assert len(lago.store) == 120


def test_equal_ids_are_posted_one_after_the_other_and_an_identical_event_counts_as_delivered() -> None:
    lago = ScriptedLago()
    assert kinds_and_reasons(deliver(lago, [item("a"), item("b"), item("a")])) == [
        ("delivered", "accepted"),
        ("delivered", "accepted"),
        ("delivered", "confirmed"),
    ]
    assert lago.posts == [["a", "b"], ["a"]]


def test_one_id_for_two_different_events_is_a_conflict_and_the_second_a_dead_letter() -> None:
    lago = ScriptedLago()
    assert kinds_and_reasons(deliver(lago, [item("a"), item("a", cents="9")])) == [
        ("delivered", "accepted"),
        ("dead", "id_conflict"),
    ]
    assert lago.store == [event("a")]


def test_one_id_for_two_events_in_one_batch_is_a_conflict_after_a_restart_too() -> None:
    lago = ScriptedLago()
    items = [item("a", resent=True), item("a", resent=True, cents="9"), item("a", resent=True)]
    assert kinds_and_reasons(deliver(lago, items)) == [
        ("delivered", "accepted"),
        ("dead", "id_conflict"),
        ("delivered", "confirmed"),
    ]


def test_a_repeat_of_an_event_that_an_earlier_owner_may_have_sent_is_delivered_without_a_lookup() -> None:
    lago = ScriptedLago(store=[event("b")])
    outcomes = deliver(lago, [item("a"), item("b", resent=True), item("c")])
    assert kinds_and_reasons(outcomes) == [
        ("delivered", "accepted"),
        ("delivered", "already_exists"),
        ("delivered", "accepted"),
    ]
    assert lago.posts == [["a", "b", "c"], ["a", "c"]]
    assert lago.look_ups == []


def test_a_repeat_that_was_never_sent_and_that_lago_does_not_show_is_retried_later() -> None:
    lago = ScriptedLago(index_errors={"a": EXISTS})
    assert kinds_and_reasons(deliver(lago, [item("a")])) == [("retry", "unconfirmed")]
    assert lago.look_ups == ["a"]


@pytest.mark.parametrize(
    "fault",
    [
        "500 after storing",
        "timeout after storing",
        "no_answer after storing",
        "proxy page after storing",
        "short echo after storing",
        "other echo after storing",
    ],
)
def test_a_batch_stored_without_an_answer_is_billed_once(fault: str) -> None:
    lago = ScriptedLago(fault=first(fault))
    outcomes = deliver(lago, [item("a"), item("b")])
    assert kinds_and_reasons(outcomes) == [("delivered", "already_exists")] * 2
    assert [outcome.attempts for outcome in outcomes] == [2, 2]
    assert [one.transaction_id for one in lago.store] == ["a", "b"]


@pytest.mark.parametrize("fault", ["429", "401", "404", "connect"])
def test_a_post_that_was_certainly_not_stored_does_not_excuse_a_conflict(fault: str) -> None:
    lago = ScriptedLago(fault=first(fault), store=[event("a", cents="9")])
    assert kinds_and_reasons(deliver(lago, [item("a")])) == [("dead", "id_conflict")]


def test_bad_events_become_dead_letters_with_lagos_reason_and_the_others_are_delivered_at_once() -> None:
    lago = ScriptedLago(
        index_errors={
            "a": {"timestamp": ["invalid_format"]},
            "c": {"code": ["value_is_mandatory"]},
            "d": "expression_evaluation_failed: Variable: b not found",
        }
    )
    outcomes = deliver(lago, [item(name) for name in "abcde"])
    assert kinds_and_reasons(outcomes) == [
        ("dead", "invalid_timestamp"),
        ("delivered", "accepted"),
        ("dead", "missing_code"),
        ("retry", "expression_evaluation_failed"),
        ("delivered", "accepted"),
    ]
    assert outcomes[0].detail == "timestamp: invalid_format"
    assert lago.posts == [list("abcde"), list("be")]


def test_a_body_that_a_proxy_refuses_is_halved_until_the_bad_event_is_alone() -> None:
    lago = ScriptedLago(too_heavy=20)
    names = ["a" * 4, "b" * 4, "c" * 30, "d" * 4, "e" * 4]
    assert kinds_and_reasons(deliver(lago, [item(name) for name in names])) == [
        ("delivered", "accepted"),
        ("delivered", "accepted"),
        ("retry", "too_large"),
        ("delivered", "accepted"),
        ("delivered", "accepted"),
    ]


def test_a_batch_larger_than_this_lago_accepts_is_halved() -> None:
    lago = ScriptedLago()
    assert (
        kinds_and_reasons(deliver(lago, [item(f"t{n}") for n in range(230)], batch_size=230))
        == [("delivered", "accepted")] * 230
    )
    assert max(len(ids) for ids in lago.posts[1:]) <= 115


def test_a_dead_letter_is_looked_up_first_if_an_earlier_post_may_have_stored_it() -> None:
    """500 after storing, then 400: as a dead letter it would be billed although the ledger calls it failed."""
    faults = ["500 after storing", "lago 400"]
    lago = ScriptedLago(fault=lambda number, _ids: faults[number] if number < 2 else None)
    assert kinds_and_reasons(deliver(lago, [item("a")])) == [("delivered", "confirmed")]
    assert kinds_and_reasons(deliver(ScriptedLago(fault=first("lago 400")), [item("a", resent=True)])) == [
        ("dead", "bad_request")
    ]


def test_a_lookup_that_keeps_failing_sends_only_its_own_event_to_retry() -> None:
    lago = ScriptedLago(store=[event("b")], look_up_fails=lambda one: one == "b")
    outcomes = deliver(lago, [item(name) for name in "abc"])
    assert kinds_and_reasons(outcomes) == [("delivered", "accepted"), ("retry", "http_500"), ("delivered", "accepted")]
    assert (outcomes[1].maybe_sent, outcomes[1].compare) == (True, True)  # Lago has an event under its id


@pytest.mark.parametrize("later", ["403", "409", "500"])
def test_an_event_that_lago_stored_unanswered_is_one_that_it_may_have_whatever_its_last_failure_is(later: str) -> None:
    lago = ScriptedLago(fault=lambda number, _ids: later if number else "no_answer after storing")
    others = ScriptedLago(fault=lambda _number, _ids: later)
    for asked, may_have in ((lago, True), (others, later == "500")):
        (outcome,) = deliver(asked, [item("a")])
        assert (outcome.kind, outcome.reason, outcome.maybe_sent) == ("retry", f"http_{later}", may_have)
        assert lago_may_have(outcome.reason, outcome.maybe_sent) is may_have
        assert lago_may_have(outcome.reason, None)
    assert (len(lago.store), len(others.store)) == (1, 0)


def test_an_event_whose_known_id_could_not_be_looked_up_is_compared_before_it_is_given_up() -> None:
    """Between the two posts its subscription has ended: earlier it became a dead letter although Lago had it."""
    failing = iter([True])
    lago = ScriptedLago(store=[event("b")], look_up_fails=lambda _id: next(failing, False))

    def judge(value: bytes) -> RestampDecision:
        return RestampDecision(value, refused="ended" if lago.look_ups else "")

    async def main() -> list[EventOutcome]:
        return await Sink(lago).delivery.deliver([item("b")], judge=judge)

    outcomes = run_virtually(main())
    assert kinds_and_reasons(outcomes) == [("delivered", "confirmed")]


def test_if_a_repeat_would_be_billed_twice_the_event_is_looked_up_before_it_is_posted_again() -> None:
    faults = ["timeout after storing", None, "no_answer"]
    lago = ScriptedLago(unique=False, fault=lambda number, _ids: faults[number] if number < 3 else None)
    outcomes = deliver(lago, [item(name) for name in "abcd"], batch_size=2, safe=False)
    assert sorted(one.transaction_id for one in lago.store) == list("abcd")
    assert {outcome.kind for outcome in outcomes} == {"delivered"}
    assert kinds_and_reasons(outcomes).count(("delivered", "confirmed")) == 2


def test_an_earlier_owners_events_are_looked_up_too_if_a_repeat_would_be_billed_twice() -> None:
    lago = ScriptedLago(unique=False, store=[event("a"), event("b", cents="9")])
    assert kinds_and_reasons(deliver(lago, [item(name, resent=True) for name in "abc"], safe=False)) == [
        ("delivered", "confirmed"),
        ("dead", "id_conflict"),
        ("delivered", "accepted"),
    ]
    assert lago.posts == [["c"]]


def test_a_requeued_event_is_compared_even_if_an_earlier_owner_may_have_sent_it() -> None:
    """If it counted as our own repeat, another event under its id would count as its delivery."""
    lago = ScriptedLago(store=[event("same"), event("other", cents="9")])
    back = [Item(one, item(one).value, resent=True, compare=True) for one in ("same", "other", "gone")]
    assert kinds_and_reasons(deliver(lago, back)) == [
        ("delivered", "confirmed"),
        ("dead", "id_conflict"),
        ("delivered", "accepted"),
    ]


@pytest.mark.parametrize(("first_fault", "may_have"), [("409", False), ("no_answer after storing", True)])
def test_a_requeued_event_that_lago_refuses_again_is_one_that_it_may_have_only_if_a_post_was_not_answered(
    first_fault: str, may_have: bool
) -> None:
    lago = ScriptedLago(fault=lambda number, _ids: "409" if number else first_fault)
    (outcome,) = deliver(lago, [Item("a", item("a").value, resent=False, compare=True)])
    assert (outcome.kind, outcome.reason, outcome.maybe_sent) == ("retry", "http_409", may_have)


def test_a_requeued_event_is_looked_up_first_if_a_repeat_would_be_billed_twice() -> None:
    lago = ScriptedLago(unique=False, store=[event("a"), event("b", cents="9")])
    back = [Item(one, item(one).value, resent=False, compare=True) for one in "abc"]
    assert kinds_and_reasons(deliver(lago, back, safe=False)) == [
        ("delivered", "confirmed"),
        ("dead", "id_conflict"),
        ("delivered", "accepted"),
    ]
    assert lago.posts == [["c"]]


def test_on_a_lago_before_1_39_the_other_events_of_a_duplicates_batch_may_be_stored() -> None:
    """It refuses the batch because of `a` and stores `b` and `c` all the same; then it calls them repeats."""
    lago = ScriptedLago(store=[event("a")], whole_batches=False)

    async def main() -> list[EventOutcome]:
        return await Sink(lago, batches_are_whole=False).delivery.deliver([item(name) for name in "abc"])

    assert kinds_and_reasons(run_virtually(main())) == [
        ("delivered", "confirmed"),
        ("delivered", "already_exists"),
        ("delivered", "already_exists"),
    ]
    assert lago.look_ups == ["a"]
    assert [one.transaction_id for one in lago.store] == ["a", "b", "c"]


def test_on_a_lago_before_1_39_a_different_event_under_our_id_is_still_a_conflict() -> None:
    lago = ScriptedLago(store=[event("a", cents="9")], whole_batches=False)

    async def main() -> list[EventOutcome]:
        return await Sink(lago, batches_are_whole=False).delivery.deliver([item(name) for name in "ab"])

    assert kinds_and_reasons(run_virtually(main())) == [("dead", "id_conflict"), ("delivered", "already_exists")]


def test_lookups_are_rate_limited_too() -> None:
    """Lago limits them separately, ten times lower than its ingest; the code that sees the headers reports the limit to
    delivery.
    """
    lago = ScriptedLago(unique=False)
    headers = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "49", "X-RateLimit-Reset": "1"}

    async def main() -> None:
        looks = AdaptiveRateLimiter()
        looks.sent(0.0)
        looks.observe(200, headers, 0.0)
        looks.done()
        sink = Sink(lago, resend_is_safe=False, looks=looks)
        await sink.delivery.deliver([item(f"t{n}", resent=True) for n in range(200)])
        assert virtual_now() > 3.5

    run_virtually(main())
    assert len(lago.look_ups) == 200
