"""The environment variables of orgs, their subscriptions, and which org a customer belongs to; `settings.py` reads them."""

from typing import Annotated

from pydantic import BaseModel, Field

from connectors.config.types import Listed, MaybeSeconds, SubscriptionIdTemplate


class MappingSettings(BaseModel):
    """A part of `Settings`."""

    org_id_prefixes: Annotated[tuple[str, ...], Field(min_length=1), Listed] = Field(
        ("org_",), description="Prefixes of the ids of orgs, separated by commas; other customers of Lago are users."
    )
    subscription_id_template: SubscriptionIdTemplate = Field(
        "{org_id}_{plan_code}_{timestamp}",
        description="Ids of new subscriptions, made once for an org from `{org_id}`, `{plan_code}` and `{timestamp}`; "
        "`sub_{org_id}` is the same in every process.",
    )
    auto_subscribe: bool = Field(
        False,
        description="Subscribe an org to the `billing_plan` of its mapping as soon as a customer is mapped to it, if it never had a "
        "subscription. Without it, its usage is held until it has one.",
    )
    map_by_identity: bool = Field(
        False,
        description="Bill a LiteLLM customer without a mapping to the Lago customer of the same id (docs/mapping.md).",
    )
    mapping_delay_seconds: MaybeSeconds = Field(
        5, description="A changed mapping applies this many seconds later, so that every worker knows it in time."
    )
