"""What the model stores of a call, and its result."""

from dataclasses import dataclass, field
from decimal import Decimal

from tests.model import history as h
from tests.model import prices
from tests.model.lives import Life, Stored

ZERO = Decimal(0)
Bill = tuple[str, str, str, str]


@dataclass
class Owed:
    """The result, with the fields of `tests.model.product.Billed`."""

    invoices: dict[Bill, int] = field(default_factory=dict)
    sealed: Decimal = ZERO
    held: dict[str, Decimal] = field(default_factory=dict)
    dead: dict[str, Decimal] = field(default_factory=dict)
    written_off: Decimal = ZERO
    late: set[str] = field(default_factory=set)
    unclear: dict[str, Decimal] = field(default_factory=dict)
    margin: Decimal = ZERO


@dataclass
class Use:
    """A call, or a metered event of an org: `kind` is that of its customer's id, or `org`."""

    name: str
    customer: str
    kind: str
    ended: int
    metric: str
    cost: Decimal
    identity: object
    group: int = 0
    at: int = 0  # the moment it is judged by: its end, or that of the last one that it went together with
    merged: object = None
    window: int = 0
    life: Life | None = None  # None: held
    holder: str = ""  # the org that it was held for when that one's mapping was forgotten
    astray: bool = False  # it came when its mapping was forgotten already
    sealed: bool = False  # an event of that subscription is created, with this time
    moment: int = 0
    posted: tuple[str, int] | None = None  # to that subscription, with that moment
    event: object = None  # that it is a part of
    stored: Stored | None = None  # Lago's data about it
    bill: Life | None = None  # and is on this one's invoice of this month; None: on none
    month: str = ""
    again: bool = False  # after an end that was not known
    missed: bool = False  # the last invoice was counted before it was stored
    dead: bool = False
    given_up: bool = False
    call: h.Call | None = None
    card: h.Card | None = None
    price: Decimal = ZERO
    came: int = 0
    waited: bool = False

    @property
    def billed(self) -> Decimal:
        """The price times the payer's factor."""
        return self.price * prices.factor(self.card, self.life.org) if self.life else ZERO
