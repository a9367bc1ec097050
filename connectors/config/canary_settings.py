"""The environment variables of the canary (`meterbridge canary`); `settings.py` reads them."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, Field

from connectors.config.types import DAY_S, Dollars, HttpUrl, Seconds


class CanarySettings(BaseModel):
    """A part of `Settings`."""

    canary_url: HttpUrl = Field(
        "http://localhost:8080", description="The ingress that the canary posts to: the address that LiteLLM uses."
    )
    canary_interval: Annotated[int, Field(ge=1, le=DAY_S)] = Field(
        60,
        description="Seconds between two calls of the canary: a multiple of `WINDOW_SECONDS`, so that each call has an event of its own.",
    )
    canary_cost_usd: Dollars = Field(
        Decimal("0.0001"), description="Cost of one call of the canary, in dollars, as LiteLLM would report it."
    )
    canary_billed_usd: Dollars | None = Field(
        None,
        description="What one call of the canary is billed at, where a [rate card](rates.md) prices it; unset = its cost.",
    )
    canary_billed_within: Seconds = Field(
        120,
        description="Seconds after the end of its window and of `GRACE_SECONDS` within which a call of the canary must be at Lago.",
    )
