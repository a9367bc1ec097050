"""The environment variables of metering: windows, and what is billed; `settings.py` reads them."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, Field

from connectors.config.types import BillOrSkip, Dollars, Listed, Lower, MaybeSeconds, WindowSeconds, out_of
from schemas.normalised_call import GROUP_FIELDS
from schemas.policy import OutOfPeriodPolicy
from schemas.rounding import MOST_COST_DECIMALS
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS


class MeteringSettings(BaseModel):
    """A part of `Settings`."""

    window_seconds: WindowSeconds = Field(
        60, description="Length of a window in seconds; must divide a day. 0 = one Lago event per call."
    )
    grace_seconds: MaybeSeconds = Field(5, description="How many seconds after its end a window waits for late calls.")
    window_group_by: Annotated[tuple[str, ...], Listed, out_of(GROUP_FIELDS)] = Field(
        (),
        description=f"Fields by which windows are split further, separated by commas: `{'`, `'.join(GROUP_FIELDS)}`.",
    )
    dedupe_retention_hours: int = Field(
        24,
        ge=2,
        le=240,
        description="For how many hours a duplicate call is recognised; older calls are never billed directly.",
    )
    out_of_period_policy: Annotated[OutOfPeriodPolicy, Lower] = Field(
        OutOfPeriodPolicy.SHIFT,
        description="Usage before its subscription's start, or in a billing period that is invoiced already: `shift` it to the "
        "first moment that is billed, or `hold` it.",
    )
    cost_decimals: int = Field(
        12, ge=6, le=MOST_COST_DECIMALS, description="Decimal places of a dollar to which a call's cost is rounded."
    )
    cache_hit_policy: BillOrSkip = Field("skip", description="Answers from LiteLLM's cache: `bill` or `skip`.")
    byok_policy: BillOrSkip = Field("bill", description="Calls paid with the caller's own key: `bill` or `skip`.")
    client_oauth_policy: BillOrSkip = Field(
        "skip", description="Calls on the caller's own subscription: `bill` or `skip`."
    )
    silent_experiment_policy: BillOrSkip = Field("skip", description="LiteLLM's silent experiments: `bill` or `skip`.")
    max_usd_per_call: Dollars = Field(
        Decimal(1000),
        description="A call that costs more dollars is kept aside until an operator accepts it ([ADR 0016](adr/0016-what-a-call-is.md)).",
    )
    max_usd_per_token: Dollars = Field(
        Decimal(10),
        description="The same for each of its tokens; the most expensive model costs 0.0006 (`o1-pro`, LiteLLM 1.110.2).",
    )
    customer_id_fields: Annotated[tuple[str, ...], Field(min_length=1), Listed, out_of(CUSTOMER_ID_FIELDS)] = Field(
        CUSTOMER_ID_FIELDS,
        description="Fields in which a call's customer id is searched; the first one present is used.",
    )
    kept_tag_prefixes: Annotated[tuple[str, ...], Listed] = Field(
        (), description="Prefixes of request tags that are stored for `enriched`, separated by commas; empty = none."
    )
    kept_metadata: Annotated[tuple[str, ...], Listed] = Field(
        (),
        description="Names in `spend_logs_metadata` and in the metadata of key and team that are stored; empty = none.",
    )
