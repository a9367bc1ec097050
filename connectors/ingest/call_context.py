"""Extracts the context of a call that is stored (schemas/context.py). Allow-lists admit names, numbers and hosts, never
prompts or responses.
"""

from collections.abc import Iterator
from re import compile as re_compile
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Raw

from connectors.ingest.call_errors import error_members
from connectors.ingest.power_level import NAMES, level_of, may_ask
from schemas.context import MAX_TAGS, MAX_TEXT
from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected
from schemas.moments import parse_us
from schemas.wire import (
    ADDITIONAL,
    BREAKDOWN,
    CARRIED,
    CONTEXT_METADATA,
    COSTS,
    ERROR,
    TAGS,
    Call,
    CallMetadata,
    StoredCosts,
    stored_call,
)
from streams.core.metering.error_categories import FAILURE
from streams.core.metering.json_budget import may_be_read
from streams.core.metering.tolerant_reader import NumberText, clean, loose_json

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode
_HOST = re_compile(r"[a-z0-9.:-]{1,253}")
#: A longer value is not a list of names.
_MAX_BYTES = 64 << 10
#: The longest JSON in a string that is read, characters.
_MAX_JSON = 1 << 20
#: The most cached addresses, and the most characters of one. Senders choose them.
_MAX_HOSTS, _MAX_BASE = 1024, 1024
#: Costs, time of the first token, model id, API base, the fields that the deployment keeps in addition, the error, the power level.
Taken = tuple[Any, float | int | str | None, str | None, str | None, dict[str, Raw] | None, Raw | None, str] | None
#: If the first token seems to come later, a clock was wrong.
_MAX_WAIT_US = 86_400 * 1_000_000


class ContextFields:
    """The fields that a deployment keeps in addition to the fixed ones.

    Args:
        tag_prefixes: `KEPT_TAG_PREFIXES`; only request tags that begin so are kept.
        metadata: `KEPT_METADATA`; names in `spend_logs_metadata` and in the metadata of key and team.
    """

    def __init__(self, tag_prefixes: tuple[str, ...] = (), metadata: tuple[str, ...] = ()) -> None:
        self._prefixes = tuple(prefix for prefix in tag_prefixes if prefix)
        self._names = frozenset(metadata)
        self._hosts: dict[str, bytes] = {}
        self.read = msgspec.json.Decoder(stored_call(metadata=bool(self._names))).decode
        self._inner = tuple(dict.fromkeys((*NAMES, *CONTEXT_METADATA))) if self._names else NAMES
        self._asks_for_more = bool(self._prefixes or self._names)

    def take(self, stored: Any, element: object = None) -> Taken:
        """Removes the context fields from what `read` returned, and returns them; they are stored in another form.

        Args:
            element: the JSON of the call; one in bytes is searched for the word of a power level, which few calls have.
        """
        costs, first = stored.cost_breakdown, stored.completionStartTime
        model, base = stored.model_id, stored.api_base
        more, level = None, ""
        if type(element) is bytes and not self._asks_for_more and not may_ask(element):
            stored.request_tags = UNSET
            if (metadata := stored.metadata) is not UNSET and metadata is not None:
                metadata.power_level = metadata.spend_logs_metadata = UNSET
        elif (more := self._more_of(stored)) is not None:
            level = level_of(more)
            if not self._asks_for_more:
                more = None
        error = None
        if (error_information := stored.error_information) is not UNSET:
            error, stored.error_information = error_information, UNSET
        if costs is UNSET and first is UNSET and model is UNSET and base is UNSET:
            nothing = more is None and error is None and not level
            return None if nothing else (None, None, None, None, more, error, level)
        stored.cost_breakdown = stored.completionStartTime = stored.model_id = stored.api_base = UNSET
        return costs or None, first or None, model or None, base or None, more, error, level

    def of_tree(self, tree: dict[str, Any], *, of_table: bool = False) -> Taken:
        """Do the same as `take` for a tree of `loose_json`; leave out invalid values.

        Args:
            of_table: it may be a row of LiteLLM's table, which has the breakdown of the cost in the metadata.
        """
        first, model, base = (tree.get(name) for name in ("completionStartTime", "model_id", "api_base"))
        more: dict[str, Raw] = {}
        costs, metadata = tree.get(BREAKDOWN), _object_of(tree.get("metadata"))
        if costs is None and of_table:
            costs = metadata.get(BREAKDOWN)
        for members, names in ((tree, (TAGS,)), (metadata, self._inner)):
            for name in names:
                if (written := _written(members.get(name))) is not None:
                    more[name] = Raw(written)
        return (
            _costs_of(costs),
            str(first) if isinstance(first, str) else None,
            clean(str(model)) if isinstance(model, str) else None,
            clean(str(base)) if isinstance(base, str) else None,
            more if more and self._asks_for_more else None,
            Raw(error) if (error := _written(tree.get(ERROR))) is not None else None,
            level_of(more),
        )

    def context(self, taken: Taken, call: Call) -> bytes | None:
        """Return JSON of a `CallContext`; None if it is empty."""
        parts: list[bytes] = []
        if taken is not None:
            costs, first, model, base, more, error, _ = taken
            if costs is not None and len(numbers := _encode(costs)) > len(b"{}"):
                parts.append(b'"cost_breakdown":' + numbers)
            if first is not None and (wait := _wait(first, call.startTime)):
                parts.append(b'"time_to_first_token":' + wait)
            if model is not None and len(model) <= MAX_TEXT:
                parts.append(b'"model_id":' + _encode(model))
            if base is not None and (host := self._hosts.get(base) or self._host(base)):
                parts.append(host)
            if more is not None:
                parts += self._kept_members(more)
            if error is not None and call.status == FAILURE:
                parts += error_members(error)
        if call.metadata is not None and (created := _created(call.metadata)):
            parts.append(b'"cache_creation_input_tokens":%d' % created)
        return b"{%b}" % b",".join(parts) if parts else None

    def _more_of(self, stored: Any) -> dict[str, Raw] | None:
        taken: dict[str, Raw] = {}
        if (tags := stored.request_tags) is not UNSET:
            taken[TAGS] = tags
            stored.request_tags = UNSET
        metadata = stored.metadata
        if metadata is not UNSET and metadata is not None:
            for name in self._inner:
                if (value := getattr(metadata, name)) is not UNSET:
                    taken[name] = value
                    setattr(metadata, name, UNSET)
        return taken or None

    def _kept_members(self, more: dict[str, Raw]) -> Iterator[bytes]:
        if (raw := more.get(TAGS)) is not None and (tags := self._tags(raw)):
            yield b'"tags":' + _encode(tags)
        for name, source in zip(CONTEXT_METADATA, (b"spend_logs_metadata", b"key_metadata"), strict=True):
            if (raw := more.get(name)) is not None and (texts := self._texts(raw)):
                yield b'"%b":%b' % (source, _encode(texts))

    def _host(self, base: str) -> bytes:
        """Return the host as a JSON member; neither an empty one nor that of a long address is cached."""
        host = _host_of(base)
        if not host:
            return b""
        if len(base) > _MAX_BASE:
            return b'"server_address":"%b"' % host.encode()
        if len(self._hosts) >= _MAX_HOSTS:
            self._hosts.clear()
        member = self._hosts[base] = b'"server_address":"%b"' % host.encode()
        return member

    def _tags(self, raw: Raw) -> list[str]:
        tags = _listed(raw)
        kept = [clean(tag) for tag in tags if isinstance(tag, str) and tag.startswith(self._prefixes)]
        return [tag for tag in kept if len(tag) <= MAX_TEXT][:MAX_TAGS]

    def _texts(self, raw: Raw) -> dict[str, str]:
        members = _members(raw)
        kept = {name: _scalar(members[name]) for name in sorted(self._names & members.keys())[:MAX_TAGS]}
        return {name: text for name, text in kept.items() if 0 < len(text) <= MAX_TEXT}


def _object_of(value: Any) -> dict[str, Any]:
    """Return an object, also one that is JSON in a string, as exports of databases have it; `{}` for anything else."""
    if isinstance(value, str) and not isinstance(value, NumberText) and len(value) <= _MAX_JSON and may_be_read(value):
        try:
            value = loose_json(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> Any:
    """Return the value of `loose_json` with its numbers as JSON numbers."""
    if isinstance(value, dict):
        return {clean(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if type(value) is str:
        return clean(value)
    return Raw(str(value)) if isinstance(value, str) else value


def _costs_of(costs: Any) -> Any:
    """Return the members that are numbers; None if there are none."""
    if not isinstance(costs, dict):
        return None
    numbers: dict[str, Any] = _numbers_of(costs, COSTS)
    if isinstance(inner := costs.get(ADDITIONAL), dict):
        numbers[ADDITIONAL] = _numbers_of(inner, CARRIED)
    try:
        return _decode(_encode(numbers), type=StoredCosts)
    except UNDECODABLE:
        return None


def _numbers_of(members: dict[str, Any], names: tuple[str, ...]) -> dict[str, Raw]:
    return {name: Raw(str(members[name])) for name in names if isinstance(members.get(name), NumberText)}


def _created(metadata: CallMetadata) -> int:
    usage = metadata.usage_object
    if usage is None:
        return 0
    created = usage.cache_creation_input_tokens
    if created is None and usage.prompt_tokens_details is not None:
        created = usage.prompt_tokens_details.cache_creation_tokens
    return int(created) if created is not None and 0 < created < 10**12 else 0


def _wait(first: float | int | str, start: float | int | str | None) -> bytes:
    """Return the seconds between two moments with six decimals; empty if a moment is missing or the order is wrong."""
    try:
        if type(first) is float and type(start) is float:
            wait_us = round((first - start) * 1e6)
        elif start is None or start == "":
            return b""
        else:
            wait_us = parse_us(first) - parse_us(start)
    except (Rejected, ValueError, OverflowError):
        return b""
    return b"%d.%06d" % divmod(wait_us, 1_000_000) if 0 <= wait_us <= _MAX_WAIT_US else b""


def _host_of(base: str) -> str:
    """Return the host of an address with a scheme; without a scheme, any word could be a host."""
    try:
        host = (urlsplit(base.strip()).hostname or "") if "://" in base else ""
    except ValueError:
        return ""
    return host if _HOST.fullmatch(host) else ""


def _written(value: Any) -> bytes | None:
    """Return a value of a tree as JSON; None for null, and for what JSON cannot express."""
    if value is None:
        return None
    try:
        return _encode(_plain(value))
    except (msgspec.MsgspecError, TypeError, RecursionError, UnicodeEncodeError):
        return None


def _listed(raw: Raw) -> list[Any]:
    value = _loaded(raw)
    return value if isinstance(value, list) else []


def _members(raw: Raw) -> dict[str, Any]:
    value = _loaded(raw)
    return value if isinstance(value, dict) else {}


def _loaded(raw: Raw) -> Any:
    """Return the decoded value; a string is decoded once more, because exports of databases have JSON in strings."""
    written = bytes(memoryview(raw))
    if len(written) > _MAX_BYTES:
        return None
    try:
        value = _decode(written)
        return _decode(value) if isinstance(value, str) else value
    except UNDECODABLE:
        return None


def _scalar(value: Any) -> str:
    """Return a string, number or flag as text; `""` for anything else."""
    if isinstance(value, str):
        return clean(value)
    return _encode(value).decode() if isinstance(value, bool | int | float) else ""
