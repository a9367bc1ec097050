"""Makes the canary's calls, and judges their events; pure.

The canary sends one synthetic call per interval from the ingress through all roles to Lago. Each call ends at the start
of an interval, so it has a window and an event of its own (docs/adr/0037).
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
#: The outcomes of a call. `not_seen`: Lago did not answer, so the outcome is unknown. `lost`: `WATCHED_US` after it was
#: due, Lago does not have it, but has a later call.
RESULTS: Final = (BILLED, NOT_POSTED, NOT_BILLED, NOT_SEEN, WRONG_AMOUNT, BILLED_TWICE, LOST)
_SEEN: Final = frozenset({BILLED, WRONG_AMOUNT})
#: How long a call is watched after it was due, microseconds: for a second event, or for a late one.
WATCHED_US: Final = 3_600_000_000
#: After this number of consecutive calls that did not reach Lago in time, only one of every `SLOW` intervals has a
#: call.
PATIENCE, SLOW = 10, 10


@dataclass(frozen=True, slots=True)
class CanaryCall:
    """One call of the canary. Times are microseconds since 1970 UTC.

    Fields:
        id: id of the call. It is equal for equal intervals, so that two canaries bill a call once.
        model: model of the call. A window holds calls of one model.
        owed_cents: the exact amount that Lago must bill.
        ended_us: when the call ended.
        closes_us: earliest time at which its window is sealed.
        due_us: latest time at which it must be at Lago.
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
        owed_usd: the billed amount of a call, dollars.
    """

    name: str
    interval_us: int
    window_us: int
    grace_us: int
    within_us: int
    owed_usd: Decimal

    def call(self, ended_us: int, suffix: str = "") -> CanaryCall:
        """Return the call that ends at a moment; `suffix` gives it its own model, and so its own window."""
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
        """Return the start of the next interval."""
        return now_us - now_us % self.interval_us + self.interval_us


def canary_name(deployment: str) -> str:
    """Return the name of the canary's customer, model and plan. Two deployments with one Lago have different names."""
    return f"{deployment}-canary"


def canary_org(deployment: str, prefixes: Sequence[str]) -> str:
    """Return the org that pays for the canary. Lago accepts no dot in a customer's id (docs/lago-behaviour.md)."""
    return prefixes[0] + canary_name(deployment).replace(".", "_")


def check_interval(interval_s: int, policy: MeterPolicy) -> str:
    """Say why calls of this interval would share windows; `""` = they do not."""
    window_s = policy.window_us // 1_000_000
    if window_s and interval_s % window_s:
        return (
            f"CANARY_INTERVAL should be a multiple of WINDOW_SECONDS ({window_s}): each call needs a window of its own"
        )
    return ""


def bills(event: LagoEvent, call: CanaryCall) -> bool:
    """Return whether the event belongs to the window of the call. An event of another sender belongs to no window."""
    properties = event.properties
    if properties.get("model") != call.model:
        return False
    try:
        start_us, end_us = (parse_us(properties.get(name, "")) for name in ("window_start", "window_end"))
    except Rejected:
        return False
    return start_us <= call.ended_us < max(end_us, start_us + 1)


def canary_result(call: CanaryCall, events: Iterable[LagoEvent]) -> str:
    """Judge the call by its events in Lago: `billed`, `wrong_amount`, `billed_twice`, or `""` while there is no event.

    Args:
        events: the events of the canary's subscription. If Lago also bills a copy, the event is listed twice.
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
    """The outcome of a call.

    Fields:
        wait_us: time from the post until it was seen at Lago, microseconds; 0 = it was not seen.
        late: whether it was seen after it was due, so that `not_billed` was, or could have been, reported before.
        overtaken: whether a later call has been billed already.
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
        missing: number of consecutive calls, up to the last one, that were not at Lago when they were due.
        answered: whether Lago answered the last request.
    """

    missing: int = 0
    answered: bool = True
    _billed_us: int = 0
    _watched: dict[str, _Watched] = field(default_factory=dict)

    def wants(self, call: CanaryCall, interval_us: int) -> bool:
        """Return whether to make the call. While consecutive calls are missing, most intervals have none."""
        return self.missing < PATIENCE or call.ended_us // interval_us % SLOW == 0

    def posted(self, call: CanaryCall, now_us: int) -> None:
        """Watch a call that the ingress has accepted with 202."""
        self._watched[call.id] = _Watched(call, now_us)

    def not_posted(self, call: CanaryCall) -> Outcome:
        """Register that the ingress has not accepted the call."""
        return Outcome(call, NOT_POSTED)

    def looks(self, now_us: int) -> bool:
        """Return whether Lago may have a call that was not seen there yet."""
        return any(not one.result and one.call.closes_us <= now_us for one in self._watched.values())

    def may_come(self) -> bool:
        """Return whether a call that was due is not at Lago yet."""
        return any(one.result == NOT_BILLED for one in self._watched.values())

    def since_us(self) -> int | None:
        """Return the time from which events are read: the end of the oldest watched call; None = no call is watched."""
        return min((one.call.ended_us for one in self._watched.values()), default=None)

    def seen(self, events: Sequence[LagoEvent], now_us: int) -> list[Outcome]:
        """Return the new outcomes from Lago's events, the oldest call first. A second event may arrive after the first
        one.
        """
        self.answered = True
        outcomes = []
        for name, one in sorted(self._watched.items(), key=lambda item: item[1].call.ended_us):
            result = canary_result(one.call, events)
            if not result or (one.result in _SEEN and result != BILLED_TWICE) or one.result == BILLED_TWICE:
                continue
            late = one.result == NOT_BILLED or now_us > one.call.due_us
            self._watched[name] = replace(one, result=result)
            self.missing = 0  # the waiting event has arrived, or did not have to wait
            if result == BILLED and not late:
                self._billed_us = max(self._billed_us, one.call.ended_us)
            outcomes.append(Outcome(one.call, result, now_us - one.posted_us, late))
        return outcomes

    def unanswered(self) -> None:
        """Register that Lago did not answer the request for its events."""
        self.answered = False

    def overdue(self, now_us: int) -> list[Outcome]:
        """Return the calls that are due and were not seen, each once. Calls are forgotten `WATCHED_US` later, some of
        them as `lost`.
        """
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
