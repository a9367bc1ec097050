"""The environment variables of LiteLLM, its database and its Redis; `settings.py` reads them."""

from pydantic import BaseModel, Field, SecretStr

from connectors.config.types import HttpUrl, PostgresUrl


class LiteLLMSettings(BaseModel):
    """A part of `Settings`."""

    litellm_api_url: HttpUrl = Field("http://localhost:4000", description="LiteLLM's proxy.")
    litellm_database_url: PostgresUrl | None = Field(
        None, description="LiteLLM's own Postgres as a URL, for `meterbridge backfill --source litellm-db`."
    )
    litellm_master_key: SecretStr | None = Field(
        None, description="LiteLLM's master key; it is also the bearer token of the management endpoints."
    )
    redis_url: SecretStr | None = Field(None, description="LiteLLM's Redis; only its health is checked.")
