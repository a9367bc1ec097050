"""The circuit breaker, second by second; the random factor is 1, so each backoff is at its maximum."""

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streams.core.delivery.backoff import RetryPolicy
from streams.core.delivery.circuit_breaker import Breaker, State
from streams.core.delivery.verdicts import RetryLater

POLICY = RetryPolicy(random=lambda: 1.0, base_s=1.0, cap_s=8.0)
REFUSED = RetryLater("connect", opens=True)
BROKEN = RetryLater("http_500", unknown=True, isolates=True)
LIMITED = RetryLater("http_429", opens=True, wait_s=5.0)


def opened(hold: RetryLater = REFUSED, batch: object = "a") -> Breaker:
    breaker = Breaker(POLICY)
    breaker.failed(batch, batch, hold, now=0.0)
    return breaker


def test_a_breaker_starts_closed_and_lets_every_batch_pass() -> None:
    breaker = Breaker(POLICY, now=3.0)
    assert (breaker.state, breaker.reason, breaker.since) == (State.CLOSED, "", 3.0)
    assert breaker.admit("a", 3.0)
    assert breaker.admit("b", 3.0)
    assert not breaker.probes("a")


def test_a_refused_connection_opens_it_at_once() -> None:
    breaker = Breaker(POLICY)
    breaker.failed("a", "a", REFUSED, now=10.0)
    assert (breaker.state, breaker.reason, breaker.since) == (State.OPEN, "connect", 10.0)
    assert not breaker.admit("b", 10.5)
    assert breaker.wait_s("b", 10.5) == 0.5


def test_failures_of_a_single_batch_never_open_it() -> None:
    breaker = Breaker(POLICY)
    for now in range(50):
        breaker.failed(f"part {now}", "one family", BROKEN, float(now))
    assert breaker.state is State.CLOSED


def test_failures_of_two_unrelated_batches_in_a_row_open_it() -> None:
    breaker = Breaker(POLICY)
    breaker.failed("a", "family a", BROKEN, 1.0)
    breaker.failed("b", "family b", BROKEN, 2.0)
    assert (breaker.state, breaker.reason, breaker.since) == (State.OPEN, "http_500", 2.0)


def test_a_success_between_two_failures_keeps_it_closed() -> None:
    breaker = Breaker(POLICY)
    breaker.failed("a", "family a", BROKEN, 1.0)
    breaker.succeeded("c", 1.5)
    breaker.failed("b", "family b", BROKEN, 2.0)
    assert breaker.state is State.CLOSED
    assert breaker.successes == 1


def test_a_breaker_stays_open_as_long_as_lago_requested() -> None:
    breaker = opened(LIMITED)
    assert breaker.wait_s("b", 1.0) == 4.0
    assert not breaker.admit("b", 4.9)
    assert breaker.admit("b", 5.0)


def test_half_open_lets_one_probe_through_and_other_batches_wait_for_it() -> None:
    breaker = opened()
    assert breaker.admit("b", 1.0)
    assert breaker.state is State.HALF_OPEN
    assert breaker.probes("b")
    assert not breaker.admit("c", 1.0)
    assert breaker.wait_s("c", 1.0) == inf


def test_a_successful_probe_closes_it_and_wakes_the_waiting_batches() -> None:
    breaker = opened()
    breaker.admit("b", 1.0)
    woken: list[str] = []
    breaker.when_settled(lambda: woken.append("c"))
    breaker.when_settled(lambda: woken.append("d"))
    breaker.succeeded("b", 2.0)
    assert (breaker.state, breaker.reason, breaker.since) == (State.CLOSED, "", 2.0)
    assert woken == ["c", "d"]
    assert breaker.admit("c", 2.0)
    breaker.failed("e", "e", REFUSED, 3.0)
    assert woken == ["c", "d"]


def test_a_failed_probe_opens_it_for_longer_and_wakes_the_waiting_batches() -> None:
    breaker = opened()
    now = 1.0
    for wait_s in (2.0, 4.0, 8.0, 8.0):
        prober = f"probe at {now}"
        assert breaker.admit(prober, now)
        woken: list[int] = []
        breaker.when_settled(lambda woken=woken: woken.append(1))  # type: ignore[misc]
        breaker.failed(prober, prober, BROKEN, now)
        assert woken == [1]
        assert (breaker.state, breaker.since) == (State.OPEN, 0.0)
        assert breaker.wait_s("somebody else", now) == wait_s
        now += wait_s


def test_a_wait_that_a_failed_probes_answer_asks_for_does_not_increase_the_backoff() -> None:
    breaker = opened()
    for now in (1.0, 6.0, 11.0):
        assert breaker.admit(now, now)
        breaker.failed(now, now, LIMITED, now)
        assert breaker.wait_s("b", now) == 5.0
    assert breaker.admit("b", 16.0)
    breaker.failed("b", "b", BROKEN, 16.0)
    assert breaker.wait_s("c", 16.0) == 2.0


def test_an_answer_to_an_earlier_post_does_not_change_an_open_breaker() -> None:
    breaker = opened(LIMITED)
    breaker.succeeded("posted before", 1.0)
    assert breaker.state is State.OPEN
    breaker.admit("probe", 5.0)
    breaker.succeeded("posted before", 5.1)
    breaker.failed("posted before", "x", REFUSED, 5.2)
    assert str(breaker.state) == "half_open"
    assert breaker.probes("probe")


def test_a_cancelled_probe_lets_the_next_one_start_at_once() -> None:
    breaker = opened()
    breaker.admit("b", 1.0)
    woken: list[int] = []
    breaker.when_settled(lambda: woken.append(1))
    breaker.abandon("c", 1.1)
    assert breaker.state is State.HALF_OPEN
    breaker.abandon("b", 1.2)
    assert woken == [1]
    assert breaker.admit("c", 1.2)


def test_after_a_failed_probe_another_batch_probes_so_that_one_bad_batch_cannot_keep_it_open() -> None:
    breaker = opened(batch="poison")
    assert breaker.wait_s("poison", 1.0) == POLICY.give_way_s
    assert breaker.wait_s("good", 1.0) == 0.0
    assert breaker.admit("poison", 1.0 + POLICY.give_way_s)  # no other batch came
    breaker.failed("poison", "poison", BROKEN, 2.0)
    assert not breaker.admit("poison", 4.0)
    assert breaker.admit("good", 4.0)
    breaker.succeeded("good", 4.1)
    assert breaker.state is State.CLOSED


def test_a_closed_breaker_has_forgotten_earlier_failures() -> None:
    breaker = opened(batch="poison")
    for now in (5.0, 20.0, 40.0):
        breaker.admit("poison", now)
        breaker.failed("poison", "poison", BROKEN, now)
    breaker.admit("good", 60.0)
    breaker.succeeded("good", 60.0)
    breaker.failed("other", "other", REFUSED, 70.0)
    assert breaker.wait_s("poison", 70.0) == POLICY.base_s


class AnyOrder(RuleBasedStateMachine):
    """In any order of calls, a waiting batch is admitted within the maximum backoff."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now = 0.0
        self.prober: str | None = None
        self.waiting = 0

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(batch=st.sampled_from("abcd"))
    def post(self, batch: str) -> None:
        if self.breaker.admit(batch, self.now) and self.breaker.probes(batch):
            assert self.prober in (None, batch)
            self.prober = batch
        elif self.breaker.wait_s(batch, self.now) == inf:
            self.waiting += 1
            self.breaker.when_settled(self.wake)

    def wake(self) -> None:
        self.waiting -= 1

    @rule(batch=st.sampled_from("abcd"), hold=st.sampled_from([REFUSED, BROKEN, LIMITED]))
    def fail(self, batch: str, hold: RetryLater) -> None:
        self.breaker.failed(batch, batch, hold, self.now)
        self._settle(batch)

    @rule(batch=st.sampled_from("abcd"))
    def succeed(self, batch: str) -> None:
        self.breaker.succeeded(batch, self.now)
        self._settle(batch)

    @precondition(lambda self: self.prober)
    @rule()
    def cancel(self) -> None:
        assert self.prober
        self.breaker.abandon(self.prober, self.now)
        self._settle(self.prober)

    def _settle(self, batch: str) -> None:
        if batch == self.prober:
            self.prober = None

    @invariant()
    def half_open_means_exactly_one_probe(self) -> None:
        assert (self.breaker.state is State.HALF_OPEN) == (self.prober is not None)
        assert self.breaker.state is State.HALF_OPEN or self.waiting == 0

    @invariant()
    def no_one_waits_forever(self) -> None:
        for batch in "abcd":
            wait_s = self.breaker.wait_s(batch, self.now)
            assert wait_s <= POLICY.cap_s + POLICY.give_way_s or self.breaker.state is State.HALF_OPEN

    @invariant()
    def a_reason_is_given_exactly_while_it_is_not_closed(self) -> None:
        assert bool(self.breaker.reason) == (self.breaker.state is not State.CLOSED)


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestAnyOrder = AnyOrder.TestCase
