"""The environment variables of the management API, and of users' tokens; `settings.py` reads them."""

from typing import Annotated

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from connectors.config.types import HttpUrl, Issuer, Listed


class ApiSettings(BaseModel):
    """A part of `Settings`."""

    api_rate_limit: float = Field(
        500,
        ge=0,
        le=1_000_000,
        allow_inf_nan=False,
        description="Requests per second of each key or user to the management API, with bursts of one second; above it the "
        "answer is 429. 0 = no limit.",
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
    oidc_issuer: Issuer | None = Field(
        None,
        description="`iss` of users' tokens, byte for byte; unset = users have no access (docs/access.md).",
    )
    oidc_audience: Annotated[tuple[str, ...], Listed] = Field(
        (), description="`aud` of users' tokens, one of several separated by commas; needed by `OIDC_ISSUER`."
    )
    oidc_jwks_url: HttpUrl | None = Field(
        None, description="URL of the issuer's keys; unset = the one in `<issuer>/.well-known/openid-configuration`."
    )
    oidc_scopes_claim: str = Field(
        "scope", min_length=1, description="Claim with a user's scopes; `a.b` is the member `b` of the claim `a`."
    )
    oidc_orgs_claim: str = Field("orgs", min_length=1, description="Claim with the ids of a user's orgs.")
    oidc_user_claim: str = Field(
        "sub",
        min_length=1,
        description="Claim with the user's id as LiteLLM has it; the user's credits are under this id. Use only a claim that users cannot "
        "change themselves.",
    )
    oidc_grant_days: int = Field(
        30, ge=1, le=3650, description="The longest lifetime of an API key that a user makes, in days."
    )

    @field_validator("oidc_audience")
    @classmethod
    def _tokens_are_for_us(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not value and info.data.get("oidc_issuer"):
            raise ValueError("is needed by OIDC_ISSUER: tokens for others would be taken")
        return value
