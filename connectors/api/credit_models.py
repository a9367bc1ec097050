"""The bodies of requests and responses of the credit endpoints. Credits are text in JSON and Decimal in the code; one
credit is one US dollar.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AliasChoices, BaseModel, Field, StrictInt, StringConstraints, model_validator

from connectors.api.org_models import Id

USER, ORG = "user:", "org:"
#: Bytes of a body of these endpoints.
MAX_BYTES = 1 << 16
_MOST_METADATA = 20
#: The longest time in seconds that a reservation may last.
MAX_TTL_S = 86_400


def _above_zero(text: str) -> str:
    if Decimal(text) <= 0:
        raise ValueError("must be greater than 0")
    return text


#: At most 12 digits before and 12 after the point: no exponent, no sign, no space, no digit of another script.
_Digits = StringConstraints(pattern=r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?$", max_length=25, strict=True)
AmountText = Annotated[str, _Digits, Field(examples=["0.25"])]
PositiveAmountText = Annotated[str, _Digits, AfterValidator(_above_zero), Field(examples=["0.25"])]
AccountName = Annotated[str, StringConstraints(max_length=260, pattern=r"^(user|org):[^\x00-\x1f\x7f]{1,255}$")]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
Word = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]
Tokens = Annotated[StrictInt, Field(ge=0, lt=1 << 31)]
#: The page to which the customer returns. Plain HTTP is allowed only for this machine.
ReturnUrl = Annotated[
    str,
    StringConstraints(
        max_length=2000,
        pattern=r"^(https://[^\s/@\x00-\x1f\x7f]+|http://(localhost|127\.0\.0\.1)(:[0-9]{1,5})?)([/?#][^\s\x00-\x1f\x7f]*)?$",
    ),
    Field(examples=["https://shop.example/credits"]),
]


class OfAccount(BaseModel):
    """Whose credits: `account` is `user:<id>` or `org:<id>`; `user` is short for a user's. Both absent = the signed-in user's own.

    Fields:
        account: `user:<id>` or `org:<id>`; neither this nor `user` = the signed-in user's own account.
        user: short for the account `user:<id>`.
    """

    account: Annotated[AccountName | None, Field(examples=["user:ada"])] = None
    user: Annotated[Id | None, Field(validation_alias=AliasChoices("user", "user_id"))] = None

    @model_validator(mode="after")
    def _one(self) -> "OfAccount":
        if self.account is not None and self.user is not None:
            raise ValueError("account and user exclude each other")
        return self

    @property
    def named(self) -> str | None:
        """The account that the request names; None = none."""
        return f"{USER}{self.user}" if self.user is not None else self.account


class PageOfAccount(OfAccount):
    """A part of an account's transactions, the latest first."""

    limit: Annotated[int, Field(ge=1, le=200)] = 20
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class BalanceShown(BaseModel):
    """The credits of an account.

    Fields:
        balance: what was bought or given and is not used.
        reserved: for calls that run.
        available: what a new call may reserve: `balance` without `reserved`; below 0 if more is reserved than there is.
        overdraft: usage beyond the balance that is still owed.
        tier: of the account; null = the account has no row yet, so it never had credits.
    """

    account: str
    balance: AmountText
    reserved: AmountText
    available: str
    overdraft: AmountText
    tier: str | None
    currency: Literal["USD"] = "USD"


class TransactionShown(BaseModel):
    """One movement; `amount` is the change of the balance, below 0 for debits; `balance_after` is the balance after the
    movement.

    Fields:
        transaction_type: the kind of movement, such as `purchase`, `debit`, `bonus` or `expiry`.
        amount: change of the balance in US dollars, below 0 for debits.
        balance_after: the balance after the movement, US dollars.
        created_at: when the movement was booked, ISO 8601.
        provider, model, power_level: of the call that was paid; null = the movement is no call.
        prompt_tokens, completion_tokens: input and output tokens of the call; null = not known.
        payment_method: how it was paid, e.g. `stripe`; null = it was not bought.
        stripe_transaction_id: Stripe's id of the payment; null = it was not paid through Stripe.
        package_id: the package that was bought; null = none.
        metadata: further facts that the caller sent.
    """

    transaction_id: UUID
    transaction_type: str
    amount: str
    balance_after: str
    created_at: datetime
    provider: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    power_level: str | None
    payment_method: str | None
    stripe_transaction_id: str | None
    package_id: int | None
    metadata: dict[str, Any]


class TransactionsShown(BaseModel):
    """A page of an account's transactions, the latest first; `has_more`: there are older ones.

    Fields:
        transactions: the movements, the latest first.
    """

    account: str
    transactions: list[TransactionShown]
    limit: int
    offset: int
    has_more: bool


class PackageShown(BaseModel):
    """A package that can be bought: `credits` and `bonus_credits` for `price`.

    Fields:
        name: its name for people.
        credits: credits that the price buys, 1 credit = 1 US dollar.
        bonus_credits: credits that are added for free.
        price: US dollars, a decimal.
    """

    package_id: int
    name: str
    description: str
    credits: str
    bonus_credits: str
    price: str
    currency: Literal["USD"] = "USD"


class PackagesShown(BaseModel):
    """All packages that can be bought, the cheapest first.

    Fields:
        packages: the packages, the cheapest first.
    """

    packages: list[PackageShown]


class DebitBody(OfAccount, extra="forbid"):
    """Credits that a user has used. The header `Idempotency-Key` is required: the same key debits once.

    Fields:
        cost: credits to take, a decimal above 0; 1 credit = 1 US dollar.
        metadata: facts to keep with the movement; no secrets, because it is shown.
    """

    cost: PositiveAmountText
    provider: Word = ""
    model: Word = ""
    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    power_level: Literal["eco", "balanced", "precision"] = "balanced"
    metadata: Annotated[dict[Word, Word | StrictInt | bool | None], Field(max_length=_MOST_METADATA)] = {}


class Debited(BaseModel):
    """The balance after a debit. A repeat of a request shows the transaction of the first one.

    Fields:
        new_balance: the balance after the debit, US dollars.
    """

    account: str
    transaction_id: UUID
    new_balance: AmountText


class AuthorizeBody(OfAccount, extra="forbid"):
    """What a call will cost at most, as far as is known, and for how many seconds the credits are reserved.

    Fields:
        estimate: the most that the call will cost, US dollars, a decimal; 0 = not known.
        ttl: seconds after which the reservation expires.
        call_id: LiteLLM's id of the call; its report releases the reservation.
    """

    estimate: AmountText
    ttl: Annotated[StrictInt, Field(ge=1, le=MAX_TTL_S)] = 600
    call_id: CallId


class Reserved(BaseModel):
    """Credits are reserved; `available` is what is left for other calls.

    Fields:
        authorized: always true; a refused call is answered with 402.
        available: what is left for other calls, US dollars.
    """

    authorized: Literal[True] = True
    account: str
    reservation_id: UUID
    available: str


class Released(BaseModel):
    """`released` is false if the reservation was settled, released or over before.

    Fields:
        released: true: these credits were reserved until now; false: the reservation was settled, released or
            over before.
    """

    reservation_id: UUID
    released: bool


class PurchaseBody(OfAccount, extra="forbid"):
    """The package, and the pages to which the customer comes back from the payment.

    Fields:
        payment_method: Stripe is the only one.
        success_url, cancel_url: the pages to which the customer comes back after the payment, or without it.
    """

    package_id: Annotated[StrictInt, Field(ge=1, lt=1 << 31)]
    payment_method: Literal["stripe"] = "stripe"
    success_url: ReturnUrl
    cancel_url: ReturnUrl


class PurchaseShown(BaseModel):
    """A purchase that waits for its payment at `checkout_url`.

    Fields:
        session_id: Stripe's id of the checkout session.
        checkout_url: Stripe's page where the customer pays.
    """

    purchase_id: UUID
    account: str
    package_id: int
    session_id: str
    checkout_url: str


class RefusedQuery(BaseModel):
    """How many of the latest ones.

    Fields:
        limit: how many of the latest refused payments.
    """

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class RefusedPayment(BaseModel):
    """An event of Stripe's that changed no credits although money is in it; `reason` says why (docs/errors.md).

    Fields:
        event_id: Stripe's id of the event.
        event_type: Stripe's type of the event, e.g. `checkout.session.completed`.
        payment_intent: Stripe's id of the payment; null = the event names none.
        purchase_id: the purchase that the event names; null = none.
        account: the account that the payment was for; null = not known.
        received_at: when the event arrived, ISO 8601.
    """

    event_id: str
    event_type: str
    reason: str
    detail: str
    payment_intent: str | None
    purchase_id: UUID | None
    account: str | None
    received_at: datetime


class RefusedPayments(BaseModel):
    """The latest first.

    Fields:
        payments: the refused payments, the latest first.
    """

    payments: list[RefusedPayment]
