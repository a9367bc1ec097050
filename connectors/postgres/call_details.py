"""Makes the columns of a call that come from its context: time to the first token, session, app and tags."""

from typing import Final, NamedTuple

import msgspec

from schemas.context import CallContext
from schemas.decoding import UNDECODABLE, decoder
from schemas.records import EnrichedUsage
from streams.core.metering.error_categories import FAILURE, OTHER, category_of

_decode: Final = decoder(CallContext)
_encode: Final = msgspec.json.Encoder().encode
#: Names of metadata, kept by `KEPT_METADATA`, for a call's session and app. The first one that is present is used.
SESSION: Final = ("session_id", "litellm_session_id")
APP: Final = ("app", "app_id", "app_name")


class CallDetails(NamedTuple):
    """Values for usage.sql; None = the call does not have the value.

    Fields:
        time_to_first_token: seconds, as text.
        tags: JSON of a list of texts.
        error_category: of a failed call, see `streams.core.metering.error_categories`.
    """

    byok: bool
    time_to_first_token: str | None = None
    session_id: str | None = None
    app: str | None = None
    tags: str | None = None
    error_category: str | None = None
    cache_hit: bool = False


def details_of(usage: EnrichedUsage) -> CallDetails:
    """Return the details of a call. If its context cannot be read, there are no details, but the call is still logged."""
    if usage.context is msgspec.UNSET:
        category = OTHER if usage.status == FAILURE else None
        return CallDetails(usage.byok, error_category=category, cache_hit=usage.cache_hit)
    try:
        context = _decode(usage.context)
    except UNDECODABLE:
        return CallDetails(usage.byok, cache_hit=usage.cache_hit)
    first = context.time_to_first_token
    return CallDetails(
        usage.byok,
        None if first is None or not 0 <= first < 1e6 else f"{first:.6f}",
        _named(context, SESSION),
        _named(context, APP),
        _encode(context.tags).decode() if context.tags else None,
        category_of(context.error_code, context.error_class) if usage.status == FAILURE else None,
        usage.cache_hit,
    )


def _named(context: CallContext, names: tuple[str, ...]) -> str | None:
    """Return the value of the first of these names in the metadata of the call or of its key."""
    for metadata in (context.spend_logs_metadata, context.key_metadata):
        for name in names:
            if value := metadata.get(name):
                return value
    return None
