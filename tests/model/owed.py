"""The model: what is owed after a history, by the laws of docs/owed.md alone. It knows nothing of the product.

It is slow and short on purpose: whoever doubts the product reads this page.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

from tests.model import history as h

GRACE, HORIZON, MEMORY = 5, 23 * h.HOUR, 24
ZERO, CENT = Decimal(0), Decimal("0.01")
Bill = tuple[str, str, str, str]


@dataclass
class Life:
    """A subscription: `[start, end)`."""

    org: str
    plan: str
    name: str
    start: int
    end: int | None = None


@dataclass
class Owed:
    """The answer, in the words of `tests.model.product.Billed`."""

    invoices: dict[Bill, int] = field(default_factory=dict)
    sealed: Decimal = ZERO
    held: dict[str, Decimal] = field(default_factory=dict)
    dead: dict[str, Decimal] = field(default_factory=dict)
    written_off: Decimal = ZERO
    late: set[str] = field(default_factory=set)


@dataclass
class Use:
    """A call, or an org's use of something: `kind` is that of its customer's id, or `org`."""

    name: str
    customer: str
    kind: str
    ended: int
    metric: str
    cost: Decimal
    identity: object
    window: int = 0
    life: Life | None = None  # None: held
    month: str = ""  # of the invoice it is on
    sealed: bool = False  # an event of that subscription is made, at this moment
    moment: int = 0
    dead: bool = False
    given_up: bool = False


class Model:
    """What is known while the history goes by."""

    def __init__(self) -> None:
        self.now = self.clock = 0
        self.away = False
        self.settings = h.Restarted(0)
        self.counted: dict[object, Use] = {}
        self.costless: dict[object, int] = {}
        self.late: list[Use] = []
        self.lives: list[Life] = []
        self.own: dict[str, str] = {}
        self.mappings: dict[str, list[tuple[int, h.Mapped | h.Unmapped]]] = {}

    def call(self, call: h.Call, identity: object = None) -> Use:
        """As it is told."""
        name = f"call-{call.number}-{call.ended}"
        return Use(name, call.customer, call.kind, call.ended, h.USAGE, Decimal(call.cost or 0), identity or name)

    def arrives(self, use: Use, *, checked: bool = False) -> None:
        """What is used counts once, by its identity; a call only with a cost: a copy without one leaves the way open.
        What ended so long ago that a copy of it may be forgotten is not counted unseen. A cost is rounded once, to the
        decimals of the day, half to even."""
        if checked and (use.identity in self.counted or (not use.cost and use.identity in self.costless)):
            return  # the log of calls knows it: it is not sent
        counted = self.costless.get(use.identity, -h.ENDS)
        remembered = self.clock // h.HOUR - counted // h.HOUR <= MEMORY
        self.clock = max(self.clock, self.now)
        if use.identity in self.counted:
            return
        if use.ended < self.clock - HORIZON and not checked and not remembered:
            self.late.append(use)
            return
        use.cost = use.cost.quantize(Decimal(1).scaleb(-self.settings.decimals), ROUND_HALF_EVEN)
        if not use.cost and use.metric == h.USAGE:
            self.costless.setdefault(use.identity, self.clock)
        else:
            use.window = self.settings.window if use.metric == h.USAGE else 0
            use.life = self.payer(use)
            self.counted[use.identity] = use
            if not use.window:
                self.seals(use)

    def payer(self, use: Use) -> Life | None:
        """The subscription that pays, None: it is held; none that has ended."""
        found = (self.choice(use, org, named, use.ended) for org, named in self.payers(use))
        return next((life for life in found if life), None)

    def choice(self, use: Use, org: str, named: str, moment: int) -> Life | None:
        """Of the org's subscriptions that charge the metric: the one that ran at the moment; else the one that began
        next; of several the org's own."""
        lives = [life for life in self.lives if life.org == org and use.metric in h.CHARGED[life.plan]]
        free = not lives and use.metric != h.USAGE  # it has no amount: where no plan charges it, it goes to any of them
        lives = [life for life in self.lives if life.org == org] if free else lives
        lives = [life for life in lives if named in ("", life.name) and self.runs(life)]
        best = [life for life in lives if life.start <= moment and (life.end is None or moment < life.end)]
        if not best and (later := [life for life in lives if life.start > moment]):
            best = [life for life in later if life.start == min(other.start for other in later)]
        own = [life for life in best if life.name == self.own.get(org)]
        return (own or best)[0] if len(best) == 1 or own or (free and best) else None

    def payers(self, use: Use) -> Iterator[tuple[str, str]]:
        """Orgs, with the subscription that is named: of the mapping that the end lies in; the first one covers all
        before it. Where it is of no use to the call (ended, or for another kind of id) the next one that is. After it,
        should it lead to no subscription, later ones to the same org; and to another org only if it was deleted before
        its org had any subscription. Then that org is the one that holds it, and the same is asked of it.
        None takes over before it has begun."""
        if use.kind == "org":
            yield use.customer, ""
        versions = self.mappings.get(use.customer, [])
        covering = max((n for n, (begins, _) in enumerate(versions) if begins <= use.ended), default=0)
        holder: h.Mapped | None = None
        deleted = named = False
        for begins, mapped in versions[covering:]:
            if begins > self.now and mapped is not versions[covering][1]:
                return
            if isinstance(mapped, h.Unmapped):
                deleted |= mapped.deleted and holder is not None
            elif mapped.kind in ("", use.kind):
                if holder and mapped.org != holder.org:
                    if not deleted or named or any(life.org == holder.org for life in self.lives):
                        return
                    named = False
                holder, deleted, named = mapped, False, named or bool(mapped.named)
                yield mapped.org, mapped.named

    def maps(self, step: h.Mapped | h.Unmapped) -> None:
        """From now and the lead on, or from the moment that it names. What was announced for later stays, unless the
        mapping is ended: that takes it back."""
        begins = max(step.at + h.LEAD, step.begins if isinstance(step, h.Mapped) else 0)
        versions = self.mappings.setdefault(step.customer, [])
        later = [] if isinstance(step, h.Unmapped) else [one for one in versions if one[0] > begins]
        versions = [one for one in versions if one[0] < begins] or [(0, first) for _, first in versions[:1]]
        if versions or isinstance(step, h.Mapped):
            self.mappings[step.customer] = [*versions, (begins, step), *later]

    def runs(self, life: Life) -> bool:
        """A subscription that has ended has had its last invoice."""
        return life.end is None or self.now < life.end

    def seals(self, use: Use) -> None:
        """An event is made, of a subscription that runs; and posted, unless Lago is away. It is on the invoice of its
        own month, or, where that is made already or the subscription began later, on the first one that can hold it.
        What waits for Lago until its subscription has ended is the org's next one's; without one it is a dead letter."""
        if not use.sealed and use.life and not self.runs(use.life):
            use.life = None
        if use.life is None:
            return
        if not use.sealed:
            use.sealed, use.moment = True, max(use.ended, use.life.start, start_of_month(self.now))
        if not self.away:
            life = use.life if self.runs(use.life) else self.choice(use, use.life.org, "", use.moment)
            use.dead = life is None
            if life is not None:
                use.life, use.month = life, month_of(max(use.moment, life.start, start_of_month(self.now)))

    def ticks(self) -> None:
        """What is held and has a payer now is his; what is ripe is sealed."""
        for use in self.counted.values():
            if use.month or use.given_up or use.dead:
                continue
            if use.life is None:
                use.life, use.window = self.payer(use), self.settings.window if use.metric == h.USAGE else 0
            if self.now >= (use.ended // use.window * use.window + use.window if use.window else use.ended) + GRACE:
                if not use.sealed and use.life and not self.runs(use.life):
                    use.life = self.payer(use)
                self.seals(use)

    def takes(self, step: h.Step) -> None:
        """One step."""
        self.now = step.at
        match step:
            case h.Arrives(call=call):
                self.arrives(self.call(call))
            case h.Polled() | h.BackfilledJob():
                job = h.Call(step.job, step.at - 1, step.cost)
                self.arrives(self.call(job, ("job", step.job)), checked=isinstance(step, h.BackfilledJob))
            case h.Recorded(org=org):
                name = f"{org}-s-{step.number}"
                self.arrives(Use(name, org, "org", step.ended, h.SEARCHES, ZERO, name))
            case h.Backfilled(call=call):
                self.arrives(self.call(call), checked=True)
            case h.Requeued():
                waiting, self.late = self.late, []
                for use in waiting:
                    self.arrives(use, checked=True)
            case h.Mapped() | h.Unmapped():
                self.maps(step)
            case h.Subscribed():
                self.lives.append(Life(step.org, step.plan, step.subscription, step.at - step.days_ago * h.DAY))
                if step.own:
                    self.own[step.org] = step.subscription
            case h.Terminated():
                for life in self.lives:
                    if life.name == step.subscription and life.end is None:
                        life.end = step.at
            case h.WrittenOff(customer=customer):
                for use in self.counted.values():
                    use.given_up |= use.customer == customer and use.life is None
            case h.Away():
                self.away = step.away
                for use in self.counted.values():
                    if use.sealed and not use.month and not use.dead:
                        self.seals(use)
            case h.Restarted():
                self.settings = step
            case h.Tick():
                self.now += h.TURN * (h.TURNS - 1)
                self.ticks()

    def answer(self) -> Owed:
        """After the last step: one rounding a fee, half up to the cent."""
        owed = Owed()
        exact: dict[Bill, Decimal] = {}
        for use in self.counted.values():
            if use.given_up:
                owed.written_off += use.cost
            elif use.month and use.life:
                owed.sealed += use.cost
                if use.metric not in h.CHARGED[use.life.plan]:
                    continue
                bill = use.life.org, use.life.name, use.month, use.metric
                exact[bill] = exact.get(bill, ZERO) + (use.cost if use.metric == h.USAGE else h.SEARCH_CENTS * CENT)
            elif use.cost and use.sealed:
                owed.sealed += use.cost
                owed.dead[use.customer] = owed.dead.get(use.customer, ZERO) + use.cost
            elif use.cost:
                owed.held[use.customer] = owed.held.get(use.customer, ZERO) + use.cost
        rounded = {bill: int((usd * 100).quantize(Decimal(1), ROUND_HALF_UP)) for bill, usd in exact.items()}
        owed.invoices = {bill: cents for bill, cents in rounded.items() if cents}
        owed.late = {use.name for use in self.late if use.identity not in self.counted}
        return owed


def owed(history: h.History) -> Owed:
    """What is owed after a history."""
    model = Model()
    for step in history:
        model.takes(step)
    return model.answer()


def start_of_month(moment: int) -> int:
    """Of the month that holds it; UTC."""
    return int(datetime.fromtimestamp(moment, UTC).replace(day=1, hour=0, minute=0, second=0).timestamp())


def month_of(moment: int) -> str:
    """As `2026-04`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m")
