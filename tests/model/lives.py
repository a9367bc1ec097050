"""Subscriptions: as in Lago, as in our records, and what Lago invoices."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations

from tests.model import history as h
from tests.model.rounding import in_cents

#: The greatest age of an end behind which calls are still looked for.
LOOKED_BEHIND = 40 * h.DAY


@dataclass
class Life:
    """A subscription: `[start, end)`. One external id may have several lives. `counted`: when Lago counted its last
    invoice.
    """

    org: str
    plan: str
    name: str
    start: int
    end: int | None = None
    counted: int | None = None

    def covers(self, moment: int) -> bool:
        """Whether it runs at that time."""
        return self.start <= moment and (self.end is None or moment < self.end)

    def at(self, moment: int) -> bool:
        """Whether Lago counts an event with that time: to the second of the end."""
        return self.start <= moment and (self.end is None or moment <= self.end)

    def over(self, now: int) -> bool:
        """Whether it has ended and had its last invoice."""
        return self.end is not None and self.end <= now


@dataclass
class Stored:
    """An event that Lago has stored for a subscription, and since when; `bill`: whether it is on an invoice."""

    event: object
    name: str
    moment: int
    at: int
    bill: bool
    cost: Decimal = Decimal(0)


@dataclass
class Lives:
    """Lago's subscriptions, `true`, and what our record of each org shows of them, `known`."""

    true: list[Life] = field(default_factory=list)
    known: dict[str, list[Life]] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)
    meant: set[str] = field(default_factory=set)
    stored: list[Stored] = field(default_factory=list)

    def begins(self, step: h.Subscribed) -> None:
        """The subscription starts in Lago."""
        self.true.append(Life(step.org, step.plan, step.subscription, step.at - step.days_ago * h.DAY))
        if step.own:
            self.own[step.org] = step.subscription
            self.known.setdefault(step.org, [])
        self.learn(step.org, step.way, step.at)

    def ends(self, step: h.Terminated) -> None:
        """The subscription ends in Lago."""
        for life in self.true:
            if life.name == step.subscription and life.end is None:
                life.end = step.at
        if not step.slow:
            self.counts(step.subscription, step.at)
        self.learn(step.org, step.way, step.at)

    def counts(self, name: str, now: int) -> None:
        """Lago counts the last invoice."""
        for life in self.true:
            if life.name == name and life.end is not None and life.counted is None:
                life.counted = now

    def of(self, org: str) -> list[Life]:
        """The subscriptions in Lago."""
        return [life for life in self.true if life.org == org]

    def learn(self, org: str, way: str, now: int, named: str = "") -> None:
        """What the record shows from now on. Discovery asks for running subscriptions and for a name; and for all if a
        subscription that runs according to our record no longer runs.
        """
        if way == h.NOT:
            return
        if way == h.POLL:
            for other in [*self.known]:
                if self.running(self.known[other]) != self.running(self.of(other)):
                    self.learn(other, h.WEBHOOK, now)
            for other in sorted(self.meant | self.own.keys()):
                if not self.known.get(other):
                    self.learn(other, h.LEARNER, now)
            return
        listed = self.of(org)
        if way == h.LEARNER and self.running(self.known.get(org, [])) <= self.running(listed):
            listed = [life for life in listed if life.end is None or life.name == named]
        if listed or named or way != h.LEARNER:
            new = {(life.name, life.start): replace(life) for life in [*self.known.get(org, []), *listed]}
            self.known[org] = sorted(new.values(), key=lambda life: (life.start, life.name))
            self.hand_on()

    def hand_on(self) -> None:
        """An external id belongs to one org at a time: when its next life starts for another org, the one before has
        ended.
        """
        for org, lives in self.known.items():
            for life in lives:
                begun = [
                    one.start
                    for other in self.known
                    for one in self.known[other]
                    if other != org and one.name == life.name and one.start > life.start
                ]
                life.end = min([*begun, *([life.end] if life.end is not None else [])], default=None)

    def asked(self, org: str, named: str, now: int) -> None:
        """A customer is mapped to it: Lago is asked if no possible payer is known."""
        self.meant.add(org)
        if not any(named in ("", life.name) for life in self.known.get(org, [])):
            self.learn(org, h.LEARNER, now, named)

    @staticmethod
    def running(lives: list[Life]) -> set[tuple[str, int]]:
        """The subscriptions without an end."""
        return {(life.name, life.start) for life in lives if life.end is None}

    def invoice(self, name: str, moment: int, now: int) -> tuple[Life | None, str]:
        """The invoice on which Lago puts an event that arrives now with that time: the life's invoice of that month,
        unless it is counted already: at the end of the month, the last one some time after the end of the life. None:
        on no invoice.
        """
        for life in self.true:
            if life.name == name and life.at(moment) and life.counted is None:
                in_time = now <= start_of_month(moment, 1) or moment >= now or self.is_last(life, moment)
                return (life, month_of(moment)) if in_time else (None, "")
        return None, ""

    @staticmethod
    def is_last(life: Life, moment: int) -> bool:
        """Whether it is on the life's last invoice, if on any: its time is in the month in which the life ended."""
        return life.end is not None and start_of_month(life.end) <= moment

    def stores(self, event: object, name: str, moment: int, now: int, bill: bool, cost: Decimal) -> Stored:
        """Lago stores an event; for an event of several calls each adds its cost."""
        new = Stored(event, name, moment, now, bill)
        same = lambda one: (one.event, one.name, one.moment, one.at) == (event, name, moment, now)  # noqa: E731
        found = next((one for one in self.stored if same(one)), new)
        self.stored += [new] if found is new else []
        found.cost += cost
        return found

    def missed(self, org: str, kept: Stored, now: int) -> bool:
        """Whether an event on no invoice is known to have been stored only after the last one was counted."""
        lives = [life for life in self.held(org, kept.name, kept.moment, now) if life.counted is not None]
        return any(self.is_last(life, kept.moment) and self.is_on_it(life, kept) is False for life in lives)

    def is_unclear(self, org: str, kept: Stored, now: int) -> bool:
        """Whether only Lago can know if it is on the last invoice: times, number and sum do not decide, or there is no
        such invoice an hour after the end.
        """
        for life in self.held(org, kept.name, kept.moment, now - h.HOUR):
            if life.counted is None:
                return kept.at > (life.end or 0) or (
                    self.is_last(life, kept.moment) and fee_of(self.last_of(life))[1] > 0
                )
            if self.is_last(life, kept.moment):
                return self.is_on_it(life, kept) is None
        return False

    def held(self, org: str, name: str, moment: int, now: int) -> list[Life]:
        """The org's ended lives with that name, not too old, that contained the time."""
        ended = [life for life in self.of(org) if life.over(now) and (life.end or 0) >= now - LOOKED_BEHIND]
        return [life for life in ended if life.name == name and life.at(moment)]

    def is_on_it(self, life: Life, kept: Stored) -> bool | None:
        """Whether an event is on the last invoice of a life, as far as can be decided: it is in all, or in none, of the
        sets of events that Lago may have counted at one moment for this number and this sum; None: in some of them.
        """
        last = self.last_of(life)
        result = {
            any(one is kept for one in chosen) for chosen in choices(last, fee_of([one for one in last if one.bill]))
        }
        return result.pop() if len(result) == 1 else None

    def last_of(self, life: Life) -> list[Stored]:
        """Lago's events of the month in which it ended."""
        same = [one for one in self.stored if one.name == life.name and life.at(one.moment)]
        return [one for one in same if self.is_last(life, one.moment)]

    def behind_an_end(self, org: str, name: str, moment: int, now: int) -> bool:
        """Whether the time is after an end, to the second, of the org's subscription, and in no later life of it."""
        same = [life for life in self.of(org) if life.name == name and life.start <= moment]
        ends = [life.end for life in same if life.end is not None and life.end < moment]
        return len(ends) == len(same) > 0 and max(ends) >= now - LOOKED_BEHIND


def fee_of(events: list[Stored]) -> tuple[int, Decimal]:
    """The number of these events, and their cents, rounded once, half up."""
    return len(events), in_cents(sum((one.cost for one in events), Decimal(0)))


def choices(events: list[Stored], fee: tuple[int, Decimal]) -> Iterator[list[Stored]]:
    """The sets of events that Lago may have counted at one moment with this fee: all stored in earlier seconds, and
    some of those stored in that second.
    """
    for second in {0, *(one.at for one in events)}:
        earlier, then = [one for one in events if one.at < second], [one for one in events if one.at == second]
        for number in range(len(then) + 1):
            for some in combinations(then, number):
                if fee_of([*earlier, *some]) == fee:
                    yield [*earlier, *some]


def start_of_month(moment: int, later: int = 0) -> int:
    """The start of the month that contains the time, or of the month this number of months later; UTC."""
    first = datetime.fromtimestamp(moment, UTC).replace(day=1, hour=0, minute=0, second=0)
    for _ in range(later):
        first = (first + timedelta(days=32)).replace(day=1)
    return int(first.timestamp())


def month_of(moment: int) -> str:
    """Return the month in the form `2026-04`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m")
