"""The circuit breaker for Lago: closed, open, or half open with one probe at a time; a pure state machine.

Time is an argument (seconds of a monotonic clock); the caller waits. A batch is any object that is equal only to
itself; batches that were split off one batch share a family.
"""

from collections.abc import Callable
from enum import StrEnum
from math import inf

from streams.core.delivery.backoff import RetryPolicy
from streams.core.delivery.dead_letter_storm import Deaths
from streams.core.delivery.verdicts import RetryLater

#: Number of unrelated consecutive failed batches from which Lago counts as the cause.
UNRELATED_FAILURES = 2
#: A sleep may end earlier by this time, seconds.
_CLOCK_STEP_S = 0.001


class State(StrEnum):
    """The breaker's state, as exported."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The circuit breaker of one Lago. All code in an event loop that posts to this Lago shares it.

    | state     | what happens                                   | next state |
    |-----------|------------------------------------------------|------------|
    | closed    | a failure that opens, or 2 unrelated failures  | open       |
    | open      | its wait is over, a batch is admitted          | half open  |
    | half open | the probe succeeds                             | closed     |
    | half open | the probe fails, or is abandoned               | open       |

    Attributes:
        state: `half_open` while a probe is in flight.
        since: time of the last change from or to `closed`, by the clock.
        reason: stable code why it opened; `""` while closed.
        successes: number of answers that caused no hold.
        deaths: decides whether events are refused because of the events or because of Lago.
    """

    def __init__(self, policy: RetryPolicy, now: float = 0.0) -> None:
        self.state = State.CLOSED
        self.since = now
        self.reason = ""
        self.successes = 0
        self.deaths = Deaths()
        self._policy = policy
        self._probe_at = now
        self._prober: object = None
        self._failed_probes = 0
        self._gives_way: set[object] = set()
        self._failing: set[object] = set()
        self._settled: list[Callable[[], None]] = []

    def wait_s(self, batch: object, now: float) -> float:
        """Return the seconds until `batch` may ask for admission; `inf` = until the current probe has ended."""
        if self.state is State.CLOSED:
            return 0.0
        if self.state is State.HALF_OPEN:
            return inf
        wait_s = self._probe_at + (self._policy.give_way_s if batch in self._gives_way else 0.0) - now
        return wait_s if wait_s > _CLOCK_STEP_S else 0.0

    def admit(self, batch: object, now: float) -> bool:
        """Decide whether `batch` may be posted now. If the breaker is open and its wait is over, the batch becomes the
        probe.
        """
        if self.wait_s(batch, now) > 0:
            return False
        if self.state is State.OPEN:
            self._prober = batch
            self._change(State.HALF_OPEN, self.reason, now)
        return True

    def probes(self, batch: object) -> bool:
        """Return whether `batch` is the probe: it must then succeed, fail or be abandoned."""
        return self._prober is batch

    def when_settled(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, as soon as the current probe has ended with any result."""
        self._settled.append(wake)

    def succeeded(self, batch: object, now: float) -> None:
        """Register that Lago answered for `batch`. A successful probe closes the breaker."""
        self.successes += 1
        self._failing.clear()
        if self._prober is batch:
            self._failed_probes = 0
            self._gives_way.clear()
            self._change(State.CLOSED, "", now)

    def failed(self, batch: object, family: object, hold: RetryLater, now: float) -> None:
        """Register that `batch` is held. Only the probe changes a breaker that is not closed."""
        if self._prober is batch:
            self._failed_probes += hold.wait_s is None  # a wait that Lago requested does not increase the backoff
            self._open(batch, hold, now)
        elif self.state is State.CLOSED:
            self._failing.add(family)
            if hold.opens or len(self._failing) >= UNRELATED_FAILURES:
                self._open(batch, hold, now)

    def taken_apart(self, family: object) -> None:
        """Register that a batch was split. From now on the failures of each part are counted separately."""
        self._failing.discard(family)

    def abandon(self, batch: object, now: float) -> None:
        """Register that the probe was cancelled before its answer. The next probe may start at once."""
        if self._prober is batch:
            self._change(State.OPEN, self.reason, now)

    def _open(self, batch: object, hold: RetryLater, now: float) -> None:
        self._gives_way.add(batch)
        backoff_s = self._policy.wait_s(self._failed_probes + 1)
        self._probe_at = now + (hold.wait_s if hold.wait_s is not None else backoff_s)
        self._change(State.OPEN, hold.reason, now)

    def _change(self, state: State, reason: str, now: float) -> None:
        if State.CLOSED in (state, self.state):
            self.since = now
        self.state, self.reason = state, reason
        if state is not State.HALF_OPEN:
            self._prober = None
            waiting, self._settled = self._settled, []
            for wake in waiting:
                wake()
