"""Makes the enriched record of a call, encoded for downstream consumers."""

from decimal import Decimal

import msgspec

from schemas.ledger import RateKey, Window
from schemas.moments import SECOND_US, to_datetime
from schemas.money import EXACT
from schemas.normalised_call import Usage
from schemas.records import EnrichedUsage
from streams.core.mapping.resolve import Target
from streams.core.metering.lago_event import transaction_id

_encode = msgspec.json.Encoder().encode
_NOWHERE = Target("", "")


class Enricher:
    """Encodes the calls of one partition; caches the text of recent seconds."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._seconds: dict[int, str] = {}

    def __call__(
        self,
        usage: Usage,
        offset: int,
        decision: str,
        target: Target | None,
        window: Window | None,
        price: Decimal | None = None,
        rate: RateKey = None,
    ) -> bytes:
        """Return the value for `litellm.usage.enriched`. A call that is not billed has no target and no window.

        `price`: dollars by the rate card, before the factor in `rate`; None = no card applies.
        """
        where = target or _NOWHERE
        record = EnrichedUsage(
            usage.identity.hex(),
            offset,
            usage.customer_id,
            usage.id_kind,
            decision,
            usage.cost,
            self._iso(usage.start_us),
            self._iso(usage.end_us),
            usage.model,
            usage.provider,
            usage.tokens_input,
            usage.tokens_output,
            usage.total_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
            usage.status,
            usage.call_id,
            usage.request_id,
            usage.call_type,
            usage.user_id,
            usage.team_id,
            usage.organization_id,
            usage.key_hash,
            usage.key_alias,
            where.org_id,
            where.subscription,
            where.held,
            "" if window is None else transaction_id(self._prefix, window),
            usage.note,
            usage.context,
        )
        if window is None or window.identity:
            record.ledger = self._prefix
        if usage.has_details:
            record.power_level, record.cache_write_tokens = usage.power_level, usage.cache_write_tokens
            record.images, record.seconds = usage.images, usage.seconds
        if usage.byok:
            record.byok = True
        if usage.cache_hit:
            record.cache_hit = True
        if price is not None and rate is not None:
            record.rate, factor = rate
            record.billed_usd = price
            if factor != 1:
                record.billed_usd, record.price_usd = EXACT.multiply(price, factor), price
        return _encode(record)

    def _iso(self, us: int) -> str:
        second = us // SECOND_US
        text = self._seconds.get(second)
        if text is None:
            if len(self._seconds) > 4096:
                self._seconds.clear()
            text = self._seconds[second] = to_datetime(second * SECOND_US).isoformat()[:19]
        return f"{text}.{str(us % SECOND_US + SECOND_US)[1:]}Z"
