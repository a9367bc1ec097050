"""The environment variables of prepaid credits, of their sale, and of users' provider keys; `settings.py` reads them."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from connectors.config.types import FernetSecrets, HttpUrl, Secrets


class CreditSettings(BaseModel):
    """A part of `Settings`."""

    oidc_user_claim: str = Field(
        "sub",
        min_length=1,
        description="Claim with the user's id as LiteLLM has it; the user's credits are under this id. Use only a claim that users cannot "
        "change themselves.",
    )
    credits_allowed_overdraft: Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = Field(
        Decimal(0),
        description="By how many dollars the reservations of an account may exceed its credits; 0 = a call begins only if "
        "credits cover its estimate.",
    )
    authorize_rate_limit: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = Field(
        2000,
        description="Requests per second of each key that are made for each call of an LLM: reserve credits, give them back, get a user's "
        "provider key ([why 2000](litellm-plugin.md#how-many-proxies)). Above it the answer is 429. They do not count for `API_RATE_LIMIT`. 0 = no "
        "limit.",
    )
    api_postgres_connections: int = Field(
        8,
        ge=1,
        le=100,
        description="Connections of an api process to Postgres for reservations, debits, balances and purchases. It has 6 more, in pools of 2: "
        "for analytics and lists of transactions, for the rest of the management API, and for keys.",
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
    provider_keys_secret: FernetSecrets = Field(
        (),
        description="Secrets that encrypt users' keys of LLM providers ([how](provider-keys.md)), 32 bytes in URL-safe Base64 each; the newest "
        "first, several separated by commas while one is replaced. Unset = such keys can be listed and revoked only.",
    )
    provider_keys_rotation_days: int = Field(
        90, ge=1, le=3650, description="Age in days at which a user's provider key is reported as due to be replaced."
    )
