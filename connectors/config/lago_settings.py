"""The environment variables of Lago; `settings.py` reads them."""

from pydantic import BaseModel, Field, SecretStr

from connectors.config.types import HttpUrl, Seconds, Secrets


class LagoSettings(BaseModel):
    """A part of `Settings`."""

    lago_api_url: HttpUrl = Field(
        "http://localhost:3000", description="Lago's address, with or without `/api/v1` at its end."
    )
    lago_api_key: SecretStr | None = Field(None, description="Lago's API key.")
    lago_timeout: Seconds = Field(30, description="Time limit of one request to Lago, in seconds.")
    lago_event_code: str = Field(
        "ai_usage", min_length=1, max_length=255, description="Code of the billable metric for usage."
    )
    lago_clickhouse_dedup: bool = Field(
        False,
        description="Set it if Lago stores events in ClickHouse *and* its deduplication is on: then an event in doubt is sent again without "
        "looking it up.",
    )
    lago_webhook_url: HttpUrl | None = Field(
        None, description="The URL to which Lago sends its webhooks, for `meterbridge lago setup`; unset = none."
    )
    lago_webhook_secret: Secrets = Field(
        (),
        description="The HMAC key that Lago shows under Developers, Webhooks; several, separated by commas, while one is "
        "rotated. Unset = its webhooks are refused.",
    )
