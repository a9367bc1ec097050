"""The environment variables of prepaid credits and of their sale; `settings.py` reads them."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from connectors.config.types import HttpUrl, Listed, Secrets, out_of
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS, PINNED_BY_KEY

#: Every kind that a customer id can have; the last two are of senders that name the customer themselves.
_KINDS = (*CUSTOMER_ID_FIELDS, "customer", "subscription")


class CreditSettings(BaseModel):
    """A part of `Settings`."""

    credits_allowed_overdraft: Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = Field(
        Decimal(0),
        description="By how many dollars the reservations of an account may exceed its credits; 0 = a call begins only if "
        "credits cover its estimate.",
    )
    credits_user_kinds: Annotated[tuple[str, ...], Field(min_length=1), Listed, out_of(_KINDS)] = Field(
        PINNED_BY_KEY,
        description="Kinds of customer ids that name the user whose credits pay ([credits.md](credits.md#accounts)). A client chooses "
        "`end_user`: with it in the list, a client can spend the credits of another user.",
    )
    stripe_api_key: SecretStr | None = Field(
        None, description="Stripe's secret or restricted key; unset = credits cannot be bought."
    )
    stripe_webhook_secret: Secrets = Field(
        (),
        description="Signing secrets of Stripe's webhook endpoint, `whsec_...`; several, separated by commas, while one is rotated. "
        "Unset = its webhooks are refused.",
    )
    stripe_api_url: HttpUrl = Field("https://api.stripe.com", description="Stripe's API; another one only for tests.")
