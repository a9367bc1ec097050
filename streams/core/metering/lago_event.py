"""A window becomes a Lago event: what is posted, and which calls it bills."""

from schemas.ledger import Window
from schemas.moments import lago_timestamp, to_iso
from schemas.money import cents_text, plain
from schemas.policy import MeterPolicy
from schemas.records import LagoEvent, Manifest
from streams.core.metering.event_owner import DEPLOYMENT
from streams.core.metering.group_names import names_of


def part_prefix(deployment: str, topic_id: str, partition: int) -> str:
    """Return the prefix of a partition's transaction ids; the part's first offset follows.

    Each call belongs to one part, so first offsets never repeat. The topic's id separates the offsets of a recreated
    topic from the old ones.
    """
    return f"{deployment}-{topic_id}-{partition}-"


def transaction_id(prefix: str, window: Window) -> str:
    """Lago's id of the part. It is deterministic, so Lago recognises a repeated post."""
    return window.identity.hex() if window.identity else f"{prefix}{window.first}"


def event_of(window: Window, prefix: str, at_us: int, policy: MeterPolicy) -> LagoEvent:
    """Return the event of a sealed part, at `at_us` (microseconds since 1970 UTC).

    `unit` is at least 1, because Lago's dynamic charge bills nothing for a sum of zero units. All properties are text
    (docs/lago-behaviour.md). Where `at_us` is not the end of the usage, `usage_end` holds that end. The id of a single call names no
    deployment, so its property `deployment` does (streams/core/metering/event_owner.py).

    Under a rate card the amount is what the card bills, and `cost_usd` stays what the provider charged.

    Usage that others measured keeps its code and its properties. Its amount is 0: only a dynamic charge reads the
    amount, and no cost is known of this usage (docs/orgs.md).
    """
    metered, rated = window.metered, window.rated
    if metered is not None:
        properties = {"transaction_id": metered.transaction_id, **metered.properties, "org_id": window.org_id}
    else:
        end_us = window.start_us + window.length_us if window.length_us else window.max_end_us
        properties = {
            "unit": str(max(1, window.total_tokens)),
            "tokens_input": str(window.tokens_input),
            "tokens_output": str(window.tokens_output),
            "total_tokens": str(window.total_tokens),
            "requests": str(window.count),
            "cost_usd": plain(window.cost),
            "model": window.model,
            "provider": window.provider,
            "user_id": window.customer_id,
            "org_id": window.org_id,
            "window_start": to_iso(window.start_us),
            "window_end": to_iso(end_us),
        }
        if window.identity:
            properties[DEPLOYMENT] = policy.deployment
    if rated is not None:
        properties |= {"billed_usd": plain(rated.billed), "rate": rated.rate}
        if rated.factor != 1:
            properties["rate_factor"] = plain(rated.factor)
    if at_us != window.max_end_us:
        properties["usage_end"] = to_iso(window.max_end_us)
    if metered is None:
        properties.update(zip(names_of(window, policy.group_by), window.group, strict=True))
    return LagoEvent(
        transaction_id=transaction_id(prefix, window),
        external_subscription_id=window.subscription,
        code=policy.event_code if metered is None else metered.code,
        timestamp=lago_timestamp(at_us),
        precise_total_amount_cents=cents_text(window.billed),
        properties=properties,
    )


def is_rated(event: LagoEvent) -> bool:
    """Return whether a rate card has priced it.

    An event that others measured has properties of their choice, and its own `transaction_id` among them.
    """
    return "rate" in event.properties and "transaction_id" not in event.properties


def manifest_of(window: Window, partition: int, deployment: str, organization: str = "") -> Manifest:
    """Return the calls that the event bills: those of the part and of the held windows merged into it."""
    return Manifest(partition, window.first, window.last, window.count, window.merged, deployment, organization)
