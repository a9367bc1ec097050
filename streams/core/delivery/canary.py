"""What the canary bills, and what its calls' events say: pure.

The canary is one synthetic call an interval, which goes the whole way from the ingress to Lago. Each call ends at the
start of an interval and so has a window, and an event, of its own (docs/adr/0037).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from schemas.errors import Rejected
from schemas.moments import parse_us
from schemas.money import cents_text, parse_amount
from schemas.policy import MeterPolicy
from schemas.records import LagoEvent

BILLED: Final = "billed"
NOT_POSTED, NOT_BILLED, NOT_SEEN = "not_posted", "not_billed", "not_seen"
WRONG_AMOUNT, BILLED_TWICE, LOST = "wrong_amount", "billed_twice", "lost"
#: What can become of a call. `not_seen`: Lago did not answer, so it is not known. `lost`: `WATCHED_US` after it was due it is
#: not at Lago, and a later call is.
RESULTS: Final = (BILLED, NOT_POSTED, NOT_BILLED, NOT_SEEN, WRONG_AMOUNT, BILLED_TWICE, LOST)
_SEEN: Final = frozenset({BILLED, WRONG_AMOUNT})
#: A call is looked at for so long after it was due, for a second event of it, or for one that comes late.
WATCHED_US: Final = 3_600_000_000
#: After this many calls in a row that did not reach Lago in time, only one of every `SLOW` intervals has a call.
PATIENCE, SLOW = 10, 10


@dataclass(frozen=True, slots=True)
class CanaryCall:
    """One call of the canary. Moments are microseconds since 1970 UTC.

    Fields:
        id: the call's id; equal for equal intervals, so that two canaries bill a call once.
        model: of the call; one window holds calls of one model.
        owed_cents: what Lago must bill, exactly.
        ended_us: when the call ended.
        closes_us: when its window is sealed, at the earliest.
        due_us: when it must be at Lago.
    """

    id: str
    model: str
    owed_cents: Decimal
    ended_us: int
    closes_us: int
    due_us: int


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """How calls are made and judged.

    Fields:
        interval_us, window_us, grace_us, within_us: microseconds; see `CANARY_INTERVAL`, `WINDOW_SECONDS`, `GRACE_SECONDS` and
            `CANARY_BILLED_WITHIN`.
        owed_usd: what a call is billed at, dollars.
    """

    name: str
    interval_us: int
    window_us: int
    grace_us: int
    within_us: int
    owed_usd: Decimal

    def call(self, ended_us: int, suffix: str = "") -> CanaryCall:
        """The call that ends at a moment; `suffix` gives it a model, and so a window, of its own."""
        start_us = ended_us - ended_us % self.window_us if self.window_us else ended_us
        closes_us = start_us + self.window_us + self.grace_us
        return CanaryCall(
            id=f"{self.name}-{suffix or ended_us // self.interval_us}",
            model=f"{self.name}-{suffix}" if suffix else self.name,
            owed_cents=Decimal(cents_text(self.owed_usd)),
            ended_us=ended_us,
            closes_us=closes_us,
            due_us=closes_us + self.within_us,
        )

    def next_us(self, now_us: int) -> int:
        """The start of the next interval."""
        return now_us - now_us % self.interval_us + self.interval_us


def canary_name(deployment: str) -> str:
    """The canary's customer, model and plan; two deployments that bill into one Lago have two."""
    return f"{deployment}-canary"


def canary_org(deployment: str, prefixes: Sequence[str]) -> str:
    """The org that pays for the canary. Lago takes no dot in a customer's id (docs/lago-behaviour.md)."""
    return prefixes[0] + canary_name(deployment).replace(".", "_")


def check_interval(interval_s: int, policy: MeterPolicy) -> str:
    """Why calls of this interval would share windows; `""` = they do not."""
    window_s = policy.window_us // 1_000_000
    if window_s and interval_s % window_s:
        return (
            f"CANARY_INTERVAL should be a multiple of WINDOW_SECONDS ({window_s}): each call needs a window of its own"
        )
    return ""


def bills(event: LagoEvent, call: CanaryCall) -> bool:
    """Whether the event's window is that of the call. An event that others posted is of no window."""
    properties = event.properties
    if properties.get("model") != call.model:
        return False
    try:
        start_us, end_us = (parse_us(properties.get(name, "")) for name in ("window_start", "window_end"))
    except Rejected:
        return False
    return start_us <= call.ended_us < max(end_us, start_us + 1)


def canary_result(call: CanaryCall, events: Iterable[LagoEvent]) -> str:
    """What Lago has of the call: `billed`, `wrong_amount`, `billed_twice`, or `""` while it has nothing.

    Args:
        events: of the canary's subscription; a copy that Lago bills as well is in it twice.
    """
    own = [event for event in events if bills(event, call)]
    if not own:
        return ""
    if len(own) > 1 or own[0].properties.get("requests") != "1":
        return BILLED_TWICE
    try:
        billed_cents = parse_amount(own[0].precise_total_amount_cents)
    except Rejected:
        return WRONG_AMOUNT
    return BILLED if billed_cents == call.owed_cents else WRONG_AMOUNT


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call.

    Fields:
        wait_us: from its post until it was seen at Lago, microseconds; 0 where it was not.
        late: it was seen after it was due, so that `not_billed` was said of it before, or would have been.
        overtaken: a later call has been billed already.
    """

    call: CanaryCall
    result: str
    wait_us: int = 0
    late: bool = False
    overtaken: bool = False


@dataclass(frozen=True, slots=True)
class _Watched:
    call: CanaryCall
    posted_us: int
    result: str = ""


@dataclass(slots=True)
class CanaryWatch:
    """The calls that are watched, by id.

    Attributes:
        missing: calls in a row, up to the last one, that were not at Lago when they were due.
        answered: whether Lago answered the last question.
    """

    missing: int = 0
    answered: bool = True
    _billed_us: int = 0
    _watched: dict[str, _Watched] = field(default_factory=dict)

    def wants(self, call: CanaryCall, interval_us: int) -> bool:
        """Whether the call is made. While one after the other is missing, most intervals have none."""
        return self.missing < PATIENCE or call.ended_us // interval_us % SLOW == 0

    def posted(self, call: CanaryCall, now_us: int) -> None:
        """The ingress has answered 202."""
        self._watched[call.id] = _Watched(call, now_us)

    def not_posted(self, call: CanaryCall) -> Outcome:
        """The ingress has not answered 202."""
        return Outcome(call, NOT_POSTED)

    def looks(self, now_us: int) -> bool:
        """Whether Lago may have a call that was not seen there yet."""
        return any(not one.result and one.call.closes_us <= now_us for one in self._watched.values())

    def may_come(self) -> bool:
        """Whether a call that was due is not at Lago yet."""
        return any(one.result == NOT_BILLED for one in self._watched.values())

    def since_us(self) -> int | None:
        """From when on events are read: the end of the oldest watched call; None = none is watched."""
        return min((one.call.ended_us for one in self._watched.values()), default=None)

    def seen(self, events: Sequence[LagoEvent], now_us: int) -> list[Outcome]:
        """What Lago's events say that is new, the oldest call first. A second event may come after the first was seen."""
        self.answered = True
        outcomes = []
        for name, one in sorted(self._watched.items(), key=lambda item: item[1].call.ended_us):
            result = canary_result(one.call, events)
            if not result or (one.result in _SEEN and result != BILLED_TWICE) or one.result == BILLED_TWICE:
                continue
            late = one.result == NOT_BILLED or now_us > one.call.due_us
            self._watched[name] = replace(one, result=result)
            self.missing = 0  # what waited comes, or never waited
            if result == BILLED and not late:
                self._billed_us = max(self._billed_us, one.call.ended_us)
            outcomes.append(Outcome(one.call, result, now_us - one.posted_us, late))
        return outcomes

    def unanswered(self) -> None:
        """Lago did not answer the question for its events."""
        self.answered = False

    def overdue(self, now_us: int) -> list[Outcome]:
        """The calls that are due and were not seen, each once. Calls are forgotten `WATCHED_US` later, some as `lost`."""
        outcomes = []
        for name, one in list(self._watched.items()):
            overtaken = one.call.ended_us < self._billed_us
            if one.call.due_us + WATCHED_US <= now_us:
                del self._watched[name]
                if one.result == NOT_BILLED and overtaken:
                    outcomes.append(Outcome(one.call, LOST, overtaken=True))
            elif not one.result and one.call.due_us <= now_us:
                self._watched[name] = replace(one, result=NOT_BILLED)
                self.missing += 1
                outcomes.append(Outcome(one.call, NOT_BILLED if self.answered else NOT_SEEN, overtaken=overtaken))
        return outcomes
