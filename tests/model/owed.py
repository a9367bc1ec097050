"""The model: what is owed after a history, by the laws alone, over lists. It knows nothing of the product.

It is slow on purpose: whoever doubts the product reads this page and has to doubt nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

from tests.model.history import (
    AI,
    DAY,
    HOUR,
    TURN,
    TURNS,
    Arrives,
    Away,
    Backfilled,
    Call,
    History,
    Mapped,
    Polled,
    Requeued,
    Restarted,
    Step,
    Subscribed,
    Terminated,
    Tick,
    Unmapped,
    WrittenOff,
)

METRIC = "ai_usage"
GRACE, LEAD, HORIZON, MEMORY = 5, 5, 23 * HOUR, 24
ZERO = Decimal(0)


@dataclass
class Life:
    """A subscription: `[start, end)`."""

    org: str
    plan: str
    name: str
    start: int
    end: int | None = None


@dataclass
class Counted:
    """A call that is owed. `life` None: held. `month`: of the invoice it is on; `""`: on none yet."""

    who: Call
    cost: Decimal
    window: int
    life: Life | None = None
    month: str = ""
    given_up: bool = False


@dataclass
class Owed:
    """The answer, in the words of `tests.model.product.Billed`."""

    invoices: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    sealed: Decimal = ZERO
    held: dict[str, Decimal] = field(default_factory=dict)
    written_off: Decimal = ZERO
    late: set[str] = field(default_factory=set)


class Model:
    """What is known while the history goes by."""

    def __init__(self) -> None:
        self.now = self.clock = 0
        self.away = False
        self.settings = Restarted(0)
        self.counted: dict[object, Counted] = {}
        self.late: list[Call] = []
        self.lives: list[Life] = []
        self.mappings: dict[str, list[tuple[int, Mapped | Unmapped]]] = {}
        self.costless: dict[object, int] = {}
        self.own: dict[str, str] = {}

    def arrives(self, call: Call, identity: object, checked: bool = False) -> None:
        """A call counts once, by its identity, and only with a cost: a copy without one leaves the way open."""
        self.clock = max(self.clock, self.now)
        if identity in self.counted:
            return
        # What ended so long ago that a copy of it may be forgotten is not counted unseen.
        remembered = self.clock // HOUR - self.costless.get(identity, 0) // HOUR <= MEMORY
        if call.ended < self.clock - HORIZON and not checked and not remembered:
            self.late.append(call)
            return
        # A cost is rounded once, to the decimals of the day, half to even.
        cost = Decimal(call.cost or 0).quantize(Decimal(1).scaleb(-self.settings.decimals), ROUND_HALF_EVEN)
        if not cost:
            self.costless.setdefault(identity, self.clock)
            return
        self.counted[identity] = Counted(call, cost, self.settings.window, self.payer(call, judged=False))

    def payer(self, call: Call, *, judged: bool = True) -> Life | None:
        """The subscription that pays for a call, None: it is held; of those that have ended none, once that is judged."""
        for mapped in self.mapped(call):
            lives = [life for life in self.lives if life.org == mapped.org and life.plan == AI]
            lives = [life for life in lives if mapped.named in ("", life.name) and (self.runs(life) or not judged)]
            # The one that ran when the call ended; else the one that began next; of several the org's own.
            best = [life for life in lives if life.start <= call.ended and (life.end is None or call.ended < life.end)]
            if not best and (later := [life for life in lives if life.start > call.ended]):
                best = [life for life in later if life.start == min(other.start for other in later)]
            if not best and not judged:
                best = lives[-1:]
            own = [life for life in best if life.name == self.own.get(mapped.org)]
            if len(best) == 1 or own:
                return (own or best)[0]
        return None

    def mapped(self, call: Call) -> Iterator[Mapped]:
        """The mapping that the call's end lies in; the first one covers all before it. Where it is of no use to the
        call (ended, or for another kind of id) the next one that is. After it, should it not lead to a subscription,
        later ones to the same org; and to another org only if it was deleted before its org had any subscription."""
        versions = self.mappings.get(call.customer, [])
        covering = max((n for n, (begins, _) in enumerate(versions) if begins <= call.ended), default=0)
        first: Mapped | None = None
        deleted = False
        for _, mapped in versions[covering:]:
            if isinstance(mapped, Unmapped):
                deleted |= mapped.deleted and first is not None
            elif mapped.kind in ("", call.kind):
                first = first or mapped
                never = not first.named and not any(life.org == first.org for life in self.lives)
                if mapped.org != first.org and not (deleted and never):
                    return
                yield mapped

    def maps(self, step: Mapped | Unmapped) -> None:
        """From now and the lead on; a later word for the same moment takes its place."""
        versions = self.mappings.setdefault(step.customer, [])
        if len(versions) > 1 and versions[-1][0] == step.at + LEAD:
            versions.pop()
        if versions or isinstance(step, Mapped):
            versions.append((step.at + LEAD, step))

    def runs(self, life: Life) -> bool:
        """A subscription that has ended has had its last invoice."""
        return life.end is None or self.now < life.end

    def ticks(self) -> None:
        """What is ripe and has a payer is sealed and posted; it is on the invoice of its own month, or, where that
        was made already or its subscription began later, on the first one that can hold it."""
        for one in self.counted.values():
            if one.month or one.given_up:
                continue
            if one.life is None:
                one.life, one.window = self.payer(one.who), self.settings.window
            ends = one.who.ended - one.who.ended % one.window + one.window if one.window else one.who.ended
            if self.now < ends + GRACE:
                continue
            if one.life is None or not self.runs(one.life):
                one.life = self.payer(one.who)
            if one.life is not None and not self.away:
                one.month = month_of(max(one.who.ended, one.life.start, start_of_month(self.now)))

    def takes(self, step: Step) -> None:
        """One step."""
        self.now = step.at
        match step:
            case Arrives(call=call):
                self.arrives(call, (call.number, call.ended))
            case Polled():
                self.arrives(Call(step.job, step.at - 1, step.cost), ("job", step.job))
            case Backfilled(call=call):
                self.arrives(call, (call.number, call.ended), checked=True)
            case Requeued():
                waiting, self.late = self.late, []
                for call in waiting:
                    self.arrives(call, (call.number, call.ended), checked=True)
            case Mapped() | Unmapped():
                self.maps(step)
            case Subscribed():
                self.lives.append(Life(step.org, step.plan, step.subscription, step.at - step.days_ago * DAY))
                if step.own:
                    self.own[step.org] = step.subscription
            case Terminated():
                for life in self.lives:
                    if life.name == step.subscription and life.end is None:
                        life.end = step.at
            case WrittenOff(customer=customer):
                for one in self.counted.values():
                    one.given_up |= one.who.customer == customer and one.life is None
            case Away():
                self.away = step.away
            case Restarted():
                self.settings = step
            case Tick():
                self.now += TURN * (TURNS - 1)
                self.ticks()

    def answer(self) -> Owed:
        """After the last step."""
        owed = Owed()
        exact: dict[tuple[str, str, str, str], Decimal] = {}
        for one in self.counted.values():
            if one.given_up:
                owed.written_off += one.cost
            elif one.month and one.life:
                owed.sealed += one.cost
                bill = one.life.org, one.life.name, one.month, METRIC
                exact[bill] = exact.get(bill, ZERO) + one.cost * 100
            else:
                owed.held[one.who.customer] = owed.held.get(one.who.customer, ZERO) + one.cost
        # One rounding a fee: a subscription's invoice of a month, half up to the cent.
        rounded = {bill: int(cents.quantize(Decimal(1), ROUND_HALF_UP)) for bill, cents in exact.items()}
        owed.invoices = {bill: cents for bill, cents in rounded.items() if cents}
        owed.late = {f"call-{call.number}-{call.ended}" for call in self.late}
        owed.late -= {f"call-{one.who.number}-{one.who.ended}" for one in self.counted.values()}
        return owed


def owed(history: History) -> Owed:
    """What is owed after a history."""
    model = Model()
    for step in history:
        model.takes(step)
    return model.answer()


def start_of_month(moment: int) -> int:
    """Of the month that holds it; UTC."""
    day = datetime.fromtimestamp(moment, UTC)
    return int(day.replace(day=1, hour=0, minute=0, second=0).timestamp())


def month_of(moment: int) -> str:
    """As `2026-04`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m")
