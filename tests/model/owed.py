"""The model: the owed amounts after a history, only by the rules in docs/owed.md. It knows nothing of the product.

It is slow and short on purpose: to check the product, read this file and those beside it: the payer by the mappings
(`payers.py`), the subscriptions (`lives.py`), and what is stored of a call (`uses.py`).
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal

from tests.model import history as h
from tests.model import prices
from tests.model.lives import Life, Lives, start_of_month
from tests.model.payers import Mapping, Payer, Version, covering, turns
from tests.model.rounding import cost_of_call, in_cents
from tests.model.uses import ZERO, Bill, Owed, Use

GRACE, HORIZON, MEMORY = 5, 23 * h.HOUR, 24
#: Usage that is held this long is merged, within quarters of an hour.
MERGED_AFTER, QUARTER = h.HOUR, 15 * h.MINUTE
CENT = Decimal("0.01")


class Model:
    """The state during the history."""

    def __init__(self) -> None:
        self.now = self.clock = 0
        self.away = False
        self.settings = h.Restarted(0)
        self.counted: dict[object, Use] = {}
        self.costless: dict[object, int] = {}
        self.late: list[Use] = []
        self.pruned = 0
        self.lives = Lives()
        self.mappings: dict[str, Mapping] = {}
        self.cards: list[h.Card] = []

    def call(self, call: h.Call, identity: object = None) -> Use:
        """The call as it is reported."""
        name = f"call-{call.number}-{call.ended}"
        cost = Decimal(call.cost or 0)
        use = Use(name, call.customer, call.kind, call.ended, h.USAGE, cost, identity or name, call.number % 2)
        use.call = call
        return use

    def arrives(self, use: Use, *, checked: bool = False) -> bool:
        """Usage counts once, by its identity; a call only with a cost: after a copy without one, a copy with one still
        counts. Usage that ended so long ago that a copy of it may be forgotten is not counted without a check: the log
        of calls is asked, `checked`. The log cannot decide about calls that it has deleted, nor about calls that
        started when the deleted month ended: a call lasts a second, and its start may have been rounded. A cost is
        rounded once, to the day's number of decimals, half to even. False: it waits, or is not sent.
        """
        if checked and use.ended <= self.pruned + 1:
            return use.identity in self.counted
        if checked and (use.identity in self.counted or (not use.cost and use.identity in self.costless)):
            return True  # the log of calls knows it: it is not sent
        counted = self.costless.get(use.identity, -h.ENDS)
        remembered = self.clock // h.HOUR - counted // h.HOUR <= MEMORY
        self.clock = max(self.clock, self.now)
        if use.identity in self.counted:
            return True
        if use.ended < self.clock - HORIZON and not checked and not remembered:
            self.late.append(use)
            return False
        use.cost = cost_of_call(use.cost, self.settings.decimals)
        if not self.prices(use):
            self.costless.setdefault(use.identity, self.clock)
            return True
        use.at, use.window = use.ended, self.settings.window if use.metric == h.USAGE else 0
        use.astray = use.ended < self.mappings.get(use.customer, Mapping()).known_from
        use.life = self.payer(use)
        use.waited = use.life is None
        self.counted[use.identity] = use
        if not use.window:
            self.seals([use])
        return True

    def prices(self, use: Use) -> bool:
        """Prices by the card in force at the call's end, as far as it is known when the call is counted. False: it is
        free.

        A report about a job without a cost has no price: it repeats what its call was billed for, or is only a part of
        it.
        """
        if use.call is None:
            return True
        use.came = self.now
        use.card = prices.in_force(self.cards, use.ended)
        use.price = prices.price(use.card, use.call, use.cost, self.settings.decimals)
        return bool(use.cost) or (use.identity == use.name and prices.prices_use(use.card, use.call))

    def payer(self, use: Use) -> Life | None:
        """The subscription that pays; None: the usage is held. An ended one never pays."""
        found = (self.choice(use, org, named, use.at) for org, named in self.payers(use))
        return next((life for life in found if life), None)

    def choice(self, use: Use, org: str, named: str, moment: int, *, asked: bool = False) -> Life | None:
        """Of the org's subscriptions that charge the metric: the one that ran at the time; otherwise the one that
        started next; of several the org's own. `asked`: of those that Lago reports now; otherwise of those in our
        record.
        """
        known = self.lives.of(org) if asked else self.lives.known.get(org, [])
        lives = [life for life in known if use.metric in h.CHARGED[life.plan]]
        free = not lives and use.metric != h.USAGE  # it has no amount: where no plan charges it, it goes to any of them
        lives = [life for life in (known if free else lives) if named in ("", life.name) and not life.over(self.now)]
        best = [life for life in lives if life.covers(moment)]
        if not best and (later := [life for life in lives if life.start > moment]):
            best = [life for life in later if life.start == min(other.start for other in later)]
        own = [life for life in best if life.name == self.lives.own.get(org)]
        return (own or best)[0] if len(best) == 1 or own or (free and best) else None

    def follows(self, use: Use, life: Life) -> Life | None:
        """That life, or the next one of the same id if it has ended. A life that our record does not have is accepted
        as named.
        """
        same = [one for one in self.lives.known.get(life.org, []) if one.name == life.name] or [life]
        charging = [one for one in same if use.metric in h.CHARGED[one.plan]]
        lives = charging if charging or use.metric == h.USAGE else same
        return min((one for one in lives if not one.over(self.now)), key=lambda one: one.start, default=None)

    def payers(self, use: Use) -> Iterator[Payer]:
        """The possible orgs, each with the named subscription: of the mapping version that contains the end, see
        `turns`. Usage held for an org when its mapping was removed stays with it. Usage that arrives only later has no
        payer.
        """
        if use.kind == "org":
            yield use.customer, ""
        mapping = self.mappings.get(use.customer, Mapping())
        if not mapping.versions:
            return
        unknown, first = use.at < mapping.known_from, covering(mapping.versions, use.at)
        found = list(turns(mapping.versions, first, use.kind, self.now, lambda org: bool(self.lives.known.get(org))))
        if (
            use.holder
            and use.at < mapping.versions[0][0]
            and (unknown or use.holder not in [org for org, _ in found[:1]])
        ):
            found = [(use.holder, "")]
        elif unknown and use.astray:
            found = []
        yield from found

    def forgets(self, customer: str, mapping: Mapping, versions: list[Version], known_from: int) -> None:
        """Older versions are not kept: usage is held for the org that would pay now."""
        for use in self.counted.values() if versions != mapping.versions else ():
            if use.customer == customer and not use.sealed:
                found = next(self.payers(use), None)
                use.holder = use.life.org if use.life else found[0] if found else use.holder
        mapping.versions, mapping.known_from = versions, known_from

    def maps(self, step: h.Mapped | h.Unmapped) -> None:
        """The payer changes from some time on."""
        mapping = self.mappings.setdefault(step.customer, Mapping())
        if isinstance(step, h.Mapped):
            self.lives.asked(step.org, step.named, step.at)
        if mapping.maps(step):
            self.forgets(step.customer, mapping, *mapping.forgets(step.at))

    def moved(self, use: Use, life: Life, moment: int) -> int:
        """The first time from that one on that a future invoice of that life will contain."""
        return max(moment, life.start, start_of_month(self.now))

    def seals(self, uses: list[Use]) -> None:
        """One event is made of calls that belong together, for a running subscription. Its last call decides: it is on
        the invoice of its own month, or, if that exists already or the subscription started later, on the first one
        that can contain it; with OUT_OF_PERIOD_POLICY=hold it is held instead.
        """
        at = max(use.at for use in uses)
        for use in uses:
            use.at, use.event = at, uses[0].identity
            use.life = use.life and self.follows(use, use.life)
            moment = self.moved(use, use.life, at) if use.life else at
            if self.settings.late == h.HOLD and moment != at:
                use.life = None
            use.sealed, use.moment = use.life is not None, moment
        self.posts(uses)

    def posts(self, uses: Iterable[Use]) -> None:
        """Sealed usage goes to Lago, unless Lago is unavailable. Usage that waits until its subscription has ended goes
        to the org's next subscription, or becomes a dead letter without one; with OUT_OF_PERIOD_POLICY=hold every event
        that would be changed is a dead letter.
        """
        for use in uses:
            if self.away or not use.life or not use.sealed or use.posted or use.dead:
                continue
            life = self.follows(use, use.life) or self.choice(use, use.life.org, "", use.moment)
            moment = self.moved(use, life, use.moment) if life else 0
            changed = life is None or (life.name, moment) != (use.life.name, use.moment)
            use.dead = life is None or (changed and self.settings.late == h.HOLD)
            if life and not use.dead:
                use.life, use.posted = life, (life.name, moment)
                use.bill, use.month = self.lives.invoice(life.name, moment, self.now)
                if use.metric == h.USAGE:
                    billed = use.bill is not None
                    use.stored = self.lives.stores(use.event, life.name, moment, self.now, billed, use.billed)

    def rebills(self) -> None:
        """An event posted with a time after an end that was not known then is on no invoice, nor is one that was stored
        only after Lago had counted the last invoice. Once our record shows an end of the org's, Lago is asked; then the
        usage is billed again, to the subscription that pays according to Lago.
        """
        lost = [use for use in self.counted.values() if use.posted and use.life and not use.dead]
        for use in lost if self.settings.late != h.HOLD and not self.away else ():
            org, (name, moment) = use.life.org, use.posted  # type: ignore[union-attr,misc]
            ended = [life for life in self.lives.known.get(org, []) if life.over(self.now)]
            # Usage on another org's invoice is not billed again: Lago cannot remove it there (a person can).
            taken = any(life.org != org and life.name == name and life.at(moment) for life in self.lives.true)
            behind = self.lives.behind_an_end(org, name, moment, self.now)
            # A metered event has no amount, so Lago's fee shows nothing.
            missed = not use.bill and use.stored and self.lives.missed(org, use.stored, self.now)
            if ended and not taken and (behind or missed):
                life = self.choice(use, org, "", use.moment, asked=True)
                if life:
                    use.missed |= not behind
                    use.life, use.moment, use.posted, use.again = life, self.moved(use, life, use.moment), None, True
        self.posts(lost)

    def is_unclear(self, use: Use) -> bool:
        """Whether only Lago can know if it is on a last invoice: a person decides."""
        known = use.life and use.posted and use.stored
        return bool(known) and self.lives.is_unclear(use.life.org, use.stored, self.now)  # type: ignore[union-attr,arg-type]

    def ticks(self) -> None:
        """Held usage that has a payer now is released; due usage is sealed; usage held for long is merged."""
        for customer, mapping in self.mappings.items():
            if mapping.is_forgotten(self.now):
                self.forgets(customer, mapping, [], 0)
        self.now += h.TURN * (h.TURNS - 1)
        waiting = [use for use in self.counted.values() if not use.sealed and not use.given_up]
        for use in waiting:
            if use.life is None:
                self.releases(use)
        parts: dict[object, list[Use]] = {}
        for use in waiting:
            if use.life and self.ripe(use) and not self.follows(use, use.life):
                self.releases(use)
            if use.life and self.ripe(use):
                key = (
                    use.customer,
                    use.kind,
                    use.group,
                    use.life.org,
                    use.life.name,
                    use.window,
                    self.start(use),
                    use.card,
                )
                parts.setdefault(key if use.metric == h.USAGE else use.name, []).append(use)
        for part in parts.values():
            self.seals(part)
        self.merges([use for use in waiting if use.life is None and use.metric == h.USAGE])
        self.rebills()

    def start(self, use: Use) -> int:
        """The start of its window."""
        return use.at // use.window * use.window if use.window else use.at

    def ripe(self, use: Use) -> bool:
        """Whether its window is over."""
        return self.now >= self.start(use) + use.window + GRACE

    def releases(self, use: Use) -> None:
        """It goes to the present payer; with OUT_OF_PERIOD_POLICY=hold not if its time would have to change."""
        use.life, use.window = self.payer(use), self.settings.window if use.metric == h.USAGE else 0
        if use.life and self.settings.late == h.HOLD and self.moved(use, use.life, use.at) != use.at:
            use.life = None

    def merges(self, held: list[Use]) -> None:
        """Usage of one customer and model within a quarter of an hour in which, as far as is known, nothing starts or
        ends: it stays together from now on, judged by its last call.
        """
        parts: dict[object, list[Use]] = {}
        for use in held:
            if use.at < self.now - MERGED_AFTER:
                begun = sum(border <= use.at for border in self.borders(use.customer))
                use.merged = use.merged or (use.customer, use.kind, use.group, use.at // QUARTER, begun, use.card)
                parts.setdefault(use.merged, []).append(use)
        for part in parts.values():
            for use in part:
                use.at = max(other.at for other in part)

    def borders(self, customer: str) -> Iterator[int]:
        """The times at which a version of the customer's mapping starts, or a subscription of its orgs starts or ends,
        as far as is known.
        """
        mapping = self.mappings.get(customer, Mapping())
        kept = mapping.versions
        yield from (mapping.known_from, *(begins for begins, _ in kept))
        for org in {mapped.org for _, mapped in kept if isinstance(mapped, h.Mapped)}:
            for life in self.lives.known.get(org, []):
                yield from (moment for moment in (life.start, life.end) if moment is not None)

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
                self.lives.meant.add(org)
                self.arrives(Use(name, org, "org", step.ended, h.SEARCHES, ZERO, name))
            case h.Backfilled(call=call):
                self.arrives(self.call(call), checked=True)
            case h.Requeued():
                waiting, self.late = self.late, []
                self.late += [use for use in waiting if not self.arrives(use, checked=True)]
            case h.Pruned():
                self.pruned = start_of_month(self.now)
            case h.Put(card=card):
                self.cards.append(card)
            case h.Mapped() | h.Unmapped():
                self.maps(step)
            case h.Subscribed():
                self.lives.begins(step)
            case h.Terminated():
                self.lives.ends(step)
            case h.Counted():
                self.lives.counts(step.subscription, step.at)
            case h.Learnt():
                self.lives.learn(step.org, step.way, step.at)
            case h.WrittenOff(customer=customer):
                for use in self.counted.values():
                    use.given_up |= use.customer == customer and use.life is None
            case h.Away():
                self.away = step.away
                self.posts(self.counted.values())
            case h.Restarted():
                self.settings = step
            case h.Tick():
                self.ticks()

    def answer(self) -> Owed:
        """After the last step: one rounding for each fee, half up to the cent."""
        owed = Owed()
        exact: dict[tuple[Bill, int], Decimal] = {}
        for use in self.counted.values():
            if use.given_up:
                owed.written_off += use.cost
            elif not use.sealed:
                owed.held[use.customer] = owed.held.get(use.customer, ZERO) + use.cost
            else:
                owed.sealed += use.cost
                owed.margin += use.billed - use.cost if use.metric == h.USAGE else ZERO
                if self.is_unclear(use) and use.life:
                    owed.unclear[use.life.org] = owed.unclear.get(use.life.org, ZERO) + use.cost
                if use.dead and use.life:
                    owed.dead[use.life.org] = owed.dead.get(use.life.org, ZERO) + use.cost
                elif use.bill and use.metric in h.CHARGED[use.bill.plan]:
                    bill = use.bill.org, use.bill.name, use.month, use.metric
                    price = use.billed if use.metric == h.USAGE else h.SEARCH_CENTS * CENT
                    exact[bill, use.bill.start] = exact.get((bill, use.bill.start), ZERO) + price
        for (bill, _), usd in exact.items():
            if cents := int(in_cents(usd)):
                owed.invoices[bill] = owed.invoices.get(bill, 0) + cents
        owed.held = {customer: cost for customer, cost in owed.held.items() if cost}
        owed.unclear = {org: cost for org, cost in owed.unclear.items() if cost}
        owed.dead = {org: cost for org, cost in owed.dead.items() if cost}
        owed.late = {use.name for use in self.late if use.identity not in self.counted}
        return owed


def owed(history: h.History) -> Owed:
    """The owed amounts after a history."""
    model = Model()
    for step in history:
        model.takes(step)
    return model.answer()
