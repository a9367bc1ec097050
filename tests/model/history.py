"""A history: the events of a deployment, step by step, as plain data. The model and the product both read it.

Times are whole seconds since 1970 UTC, in order: no step happens before the previous one. Three customers use LiteLLM;
two orgs pay, a third org is a mistake and has no subscription.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

CUSTOMERS = ("ann", "bob", "eve")
ORGS = ("org_a", "org_b")
TYPO = "org_typo"
#: The two metrics: the cost of LiteLLM's calls, and searches that another program measures, at `SEARCH_CENTS` each.
USAGE, SEARCHES = "ai_usage", "searches"
SEARCH_CENTS = 3
#: A plan that charges usage, one that charges searches, and one that charges both.
AI, SEEK, BOTH = "ai", "seek", "both"
CHARGED = {AI: (USAGE,), SEEK: (SEARCHES,), BOTH: (USAGE, SEARCHES)}
MINUTE, HOUR, DAY = 60, 3600, 86_400
#: How much later than it is written a mapping applies.
LEAD = 5
#: By which way our records learn what Lago has of an org: its webhook (all subscriptions), an answer of the API's (all,
#: too), the learner of mapped orgs (those that run, unless one has ended), the poll (all orgs, with the learner); or not.
WEBHOOK, ANSWER, LEARNER, POLL, NOT = "webhook", "answer", "learner", "poll", ""
#: A subscription's number: that of the one external id which orgs use one after the other.
SHARED = 9
MODELS = ("claude", "gpt-4o")
ECO = "eco"
#: What OUT_OF_PERIOD_POLICY may be.
SHIFT, HOLD = "shift", "hold"
#: A tick is three turns of the worker, so far apart: what its subscription can bill no more is held in the first,
#: goes to another one in the second and is sealed in the third.
TURNS, TURN = 3, 3


def at(text: str) -> int:
    """Seconds since 1970 of a time in 2026, `04-01 00:00:30`."""
    return int(datetime.strptime(f"2026-{text}", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())


#: Before the first step, and after the last invoice that could hold anything of it.
BEGINS, ENDS = at("03-25 00:00:00"), at("07-01 00:00:00")


def name_of(org: str, plan: str, number: int) -> str:
    """A subscription's external id."""
    return "shared" if number == SHARED else f"{org}-{plan}-{number}"


@dataclass(frozen=True)
class Call:
    """A LiteLLM call; `number` and `ended` identify it, on any route. `kind`: of the customer's id. `tokens`: input, of
    these cached and written; output, of these reasoning. `level`: power level.
    """

    number: int
    ended: int
    cost: str | None
    kind: str = "end_user"
    tokens: tuple[int, int, int, int, int] = (1, 0, 0, 2, 0)
    level: str = ""

    @property
    def model(self) -> str:
        """The called model."""
        return MODELS[self.number % len(MODELS)]

    @property
    def customer(self) -> str:
        """The calling customer."""
        return CUSTOMERS[self.number % len(CUSTOMERS)]


@dataclass(frozen=True)
class Card:
    """A version of the rate card. Calls of `model` (`""` = all) are priced by it: a percentage on LiteLLM's cost, or prices
    for a million tokens (in the order of `Call.tokens`) and for a request; `minimum` each. `eco` and the orgs' factors are
    of all calls."""

    name: str
    begins: int
    model: str = ""
    percent: str | None = None
    tokens: tuple[str | None, str | None, str | None, str | None, str | None] = (None,) * 5
    request: str | None = None
    minimum: str = "0"
    eco: str = "1"
    orgs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Step:
    """An event at a time."""

    at: int


@dataclass(frozen=True)
class Arrives(Step):
    """A call is delivered by webhook."""

    call: Call


@dataclass(frozen=True)
class Polled(Step):
    """A batch job is polled again; LiteLLM reports its cost like that of a new call."""

    job: int
    cost: str | None


@dataclass(frozen=True)
class Backfilled(Step):
    """An operator sends a row of LiteLLM's database, if the usage log does not know it."""

    call: Call


@dataclass(frozen=True)
class BackfilledJob(Step):
    """The same for the row that LiteLLM itself writes about a finished job."""

    job: int
    cost: str | None


@dataclass(frozen=True)
class Recorded(Step):
    """Another service reports usage that it measured for an org; `number` and org identify it."""

    org: str
    number: int
    ended: int


@dataclass(frozen=True)
class Requeued(Step):
    """An operator requeues calls that were too late to be counted without a check."""


@dataclass(frozen=True)
class Put(Step):
    """A version of the rate card is stored."""

    card: Card


@dataclass(frozen=True)
class Mapped(Step):
    """A customer is mapped to an org; `kind`: only for ids of this kind, `named`: to this subscription, `begins`: not
    before that time.
    """

    customer: str
    org: str
    kind: str = ""
    named: str = ""
    begins: int = 0


@dataclass(frozen=True)
class Unmapped(Step):
    """A customer's mapping ends; if `deleted`, it is no longer shown."""

    customer: str
    deleted: bool = False


@dataclass(frozen=True)
class Subscribed(Step):
    """An org gets a subscription in Lago, which started this number of days ago; `own`: its record names it as the org's.
    `way`: how our record learns of it.
    """

    org: str
    plan: str
    days_ago: int = 0
    number: int = 0
    own: bool = False
    way: str = WEBHOOK

    @property
    def subscription(self) -> str:
        """Its external id."""
        return name_of(self.org, self.plan, self.number)


@dataclass(frozen=True)
class Terminated(Step):
    """A subscription ends in Lago. `way`: how our record learns of it. Lago counts its last invoice at once; if `slow`,
    at the step `Counted`.
    """

    org: str
    plan: str
    number: int = 0
    way: str = WEBHOOK
    slow: bool = False

    @property
    def subscription(self) -> str:
        """Its external id."""
        return name_of(self.org, self.plan, self.number)


@dataclass(frozen=True)
class Counted(Step):
    """Lago counts the last invoice of an ended subscription. Events stored from then on are not on it."""

    subscription: str


@dataclass(frozen=True)
class Learnt(Step):
    """Our record learns the org's present state in Lago."""

    org: str
    way: str = WEBHOOK


@dataclass(frozen=True)
class Pruned(Step):
    """The usage log deletes the calls of all months before this one, and remembers that."""


@dataclass(frozen=True)
class WrittenOff(Step):
    """An operator writes off the held usage of a customer."""

    customer: str


@dataclass(frozen=True)
class Away(Step):
    """Lago is unavailable from now on; or available again, if `away` is false."""

    away: bool


@dataclass(frozen=True)
class Restarted(Step):
    """The worker ends and restarts from its changelog, maybe with other settings."""

    window: int = MINUTE
    group_by: tuple[str, ...] = ()
    decimals: int = 12
    late: str = SHIFT


@dataclass(frozen=True)
class Tick(Step):
    """Time passes: deleted mappings are removed, the worker does its periodic work in `TURNS` turns; then sealed events
    are posted, and events after an end are billed again, unless Lago is unavailable.
    """


History = tuple[Step, ...]
