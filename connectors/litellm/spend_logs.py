"""Reads LiteLLM's own record of its calls, the table `LiteLLM_SpendLogs`, in pages, as elements of the flat shape.

Rows are written late and out of order (in batches, and a long stream has an early start). So a reader starts some time before
the end of its last read. Ids and milliseconds differ from those in callbacks (docs/litellm.md).
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import asyncpg
import msgspec

from connectors.config.postgres_urls import with_defaults
from schemas.decoding import UNDECODABLE
from schemas.errors import ConfigurationError, Rejected, Unavailable
from schemas.moments import to_iso, to_us
from schemas.wire import BREAKDOWN

PAGE: Final = 1000

#: Columns and the fields of the flat shape; some versions of LiteLLM lack some columns.
_FIELDS: Final = {
    "request_id": "id",
    "litellm_call_id": "litellm_call_id",
    "status": "status",
    "call_type": "call_type",
    "model": "model",
    "model_group": "model_group",
    "custom_llm_provider": "custom_llm_provider",
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "total_tokens": "total_tokens",
    "cache_hit": "cache_hit",
    "user": "user_id",
    "end_user": "end_user",
    "team_id": "team_id",
    "organization_id": "organization_id",
    "api_key": "api_key",
    "request_tags": "request_tags",
}
#: Versions without the column of this name have it in the metadata, or not at all.
_CALL_ID: Final = "litellm_call_id"
#: The breakdown of the cost, which callbacks have beside the metadata.
_COSTS: Final = BREAKDOWN
_METADATA: Final = (
    *("usage_object", "user_api_key_alias", "user_api_key_project_id"),
    *("used_client_oauth_token", "is_silent_experiment"),
    "power_level",  # a rate card may price it
)
_COLUMNS = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_name = 'LiteLLM_SpendLogs' AND table_schema = ANY (current_schemas(false))
"""
#: A client may write megabytes of metadata and tags to each call, and a page has a thousand rows. So the database selects
#: the members that are read. Metadata and tags in text are read only up to these numbers of characters.
_LONGEST_TEXT: Final = 1 << 20
_LONGEST_TAGS: Final = 64 << 10
_TAGS, _NOTES, _LEVEL = "request_tags", "spend_logs_metadata", "power_level"
_MEMBERS: Final = ", ".join(
    (
        *(f"'{name}', metadata -> '{name}'" for name in (*_METADATA, _CALL_ID, _COSTS)),
        f"'{_NOTES}', nullif(jsonb_build_object('{_LEVEL}', metadata #> '{{{_NOTES},{_LEVEL}}}'), '{{\"{_LEVEL}\": null}}')",
    )
)
_OF_TEXT: Final = f"WHEN length(metadata::text) <= {_LONGEST_TEXT} THEN metadata::text END"
_OF_JSON: Final = f"WHEN jsonb_typeof(metadata) = 'object' THEN jsonb_strip_nulls(jsonb_build_object({_MEMBERS}))::text"
_PAGE = """
SELECT {columns}, spend::text AS spend, "startTime", "endTime", {metadata} AS metadata
FROM "LiteLLM_SpendLogs"
WHERE ("startTime", request_id) > ($1, $2) AND "startTime" < $3
ORDER BY "startTime", request_id LIMIT {limit}
"""


async def spend_logs(url: str, since: datetime, until: datetime) -> AsyncIterator[tuple[datetime, bytes]]:
    """Calls that started in `[since, until)`, in order of their start, as (start, JSON of the flat shape).

    Money is the text of the column, never a float.

    Raises:
        Unavailable: `litellm_db`: the database does not answer, or has no such table.
        ConfigurationError: `url` is not a URL of Postgres.
    """
    try:
        connection = await asyncpg.connect(**with_defaults(url, timeout=10, command_timeout=60))
    except Rejected as error:
        raise ConfigurationError("LITELLM_DATABASE_URL", f"LITELLM_DATABASE_URL {error.detail}") from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise Unavailable("litellm_db", type(error).__name__) from error
    try:
        query = _query(dict(await connection.fetch(_COLUMNS)))
        after, last = _naive(since), ""
        while rows := await connection.fetch(query, after, last, _naive(until)):
            for row in rows:
                yield row["startTime"].replace(tzinfo=UTC), _element(row)
            after, last = rows[-1]["startTime"], rows[-1]["request_id"]
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise Unavailable("litellm_db", type(error).__name__) from error
    finally:
        with suppress(OSError, asyncpg.PostgresError, TimeoutError):
            await connection.close(timeout=5)


def _query(columns: Mapping[str, str]) -> str:
    """Return the query of a page. Args: columns: the types of the table's columns by name. Raises: Unavailable."""
    if not {"request_id", "spend", "startTime"} <= columns.keys():
        raise Unavailable("litellm_db", "there is no table LiteLLM_SpendLogs")
    named = ", ".join(
        f"""CASE WHEN length("{name}"::text) <= {_LONGEST_TAGS} THEN "{name}" END AS "{name}\""""
        if name == _TAGS
        else f'"{name}"'
        for name in _FIELDS
        if name in columns
    )
    metadata = "NULL"
    if "metadata" in columns:
        metadata = f"CASE {_OF_JSON if columns['metadata'] == 'jsonb' else ''} {_OF_TEXT}"
    return _PAGE.format(columns=named, metadata=metadata, limit=PAGE)


def _element(row: Any) -> bytes:
    element = {field: row[column] for column, field in _FIELDS.items() if column in row.keys()}  # noqa: SIM118  # a Record
    element["startTime"], element["endTime"] = _iso(row["startTime"]), _iso(row["endTime"])
    if row["spend"] is not None:
        # NaN and infinities are not JSON: as text they are refused with a reason, and the row stays readable.
        element["spend"] = msgspec.Raw(row["spend"].encode()) if Decimal(row["spend"]).is_finite() else row["spend"]
    metadata = _metadata(row["metadata"])
    element["metadata"] = {name: metadata[name] for name in (*_METADATA, _NOTES) if name in metadata}
    if isinstance(metadata.get(_COSTS), dict):
        element[_COSTS] = metadata[_COSTS]
    if not element.get(_CALL_ID) and isinstance(metadata.get(_CALL_ID), str):
        element[_CALL_ID] = metadata[_CALL_ID]
    return msgspec.json.encode(element)


def _metadata(text: str | None) -> dict[str, Any]:
    """Return the metadata, an object or, in some versions, an object in a string."""
    try:
        metadata = msgspec.json.decode(text or "{}")
        metadata = msgspec.json.decode(metadata) if isinstance(metadata, str) else metadata
    except UNDECODABLE:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _iso(moment: datetime) -> str:
    return to_iso(to_us(moment.replace(tzinfo=UTC)))


def _naive(moment: datetime) -> datetime:
    """Return the moment in the form of the table: UTC without a timezone."""
    return moment.astimezone(UTC).replace(tzinfo=None)
