"""Replaces each API key by LiteLLM's hash of it before a call is stored, so that no secret is stored."""

from typing import Any, cast

import msgspec

from schemas.customer_id import is_secret, key_hash
from schemas.wire import Call, CallMetadata

_encode = msgspec.json.Encoder().encode
_call = msgspec.json.Decoder(Call).decode
_tree = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

#: Hashes that were seen recently. There are few keys, and a lookup is faster than checking 64 digits.
_known: set[str] = set()
_KNOWN = 4096
#: Fields with a hash, and fields with ids, which are hashed only if they look like a key.
_HASHES = ("api_key", "api_key_hash")
_NAMES = (
    "key_alias",
    "end_user",
    "user",
    "user_id",
    "team_id",
    "organization_id",
    "customer_id",
    "external_customer_id",
    "external_subscription_id",
)
#: Every API key contains this text, and a search for it is fast.
_SIGN = "sk-"
_IN_METADATA = tuple(name for name in CallMetadata.__struct_fields__ if name.startswith("user_api_key_"))


def without_secrets(text: bytes, call: Call) -> tuple[bytes, Call] | None:
    """Return the stored text and its call, with each secret replaced by its hash; None if there is no secret."""
    metadata = call.metadata
    if (
        call.cloud_event is None
        and call.customer_id is None
        and call.external_customer_id is None
        and call.external_subscription_id is None
        and call.api_key_hash is None
        and ((key := call.api_key) is None or key in _known or _sound(key))
        and ((name := call.key_alias) is None or type(name) is not str or _SIGN not in name or not is_secret(name))
        and ((name := call.end_user) is None or type(name) is not str or _SIGN not in name or not is_secret(name))
        and ((name := call.user) is None or type(name) is not str or _SIGN not in name or not is_secret(name))
        and ((name := call.user_id) is None or type(name) is not str or _SIGN not in name or not is_secret(name))
        and ((name := call.team_id) is None or not _looks_secret(name))
        and ((name := call.organization_id) is None or not _looks_secret(name))
        and (metadata is None or not _secret_in(metadata))
    ):
        return None
    members = _tree(text)
    _hash_in(members, _HASHES, _NAMES)
    if metadata is not None:
        inner = _tree(members["metadata"])
        _hash_in(inner, ("user_api_key_hash",), _IN_METADATA)
        members["metadata"] = msgspec.Raw(_encode(inner))
    if call.cloud_event is not None:
        event = _tree(members["cloud_event"])
        _hash_in(event, (), ("subject",))
        if call.cloud_event.data is not None:
            data = _tree(event["data"])
            _hash_in(data, (), ("customer_id", "end_user", "user"))
            event["data"] = msgspec.Raw(_encode(data))
        members["cloud_event"] = msgspec.Raw(_encode(event))
    hashed = _encode(members)
    return None if hashed == text else (hashed, _call(hashed))


def _secret_in(metadata: CallMetadata) -> bool:
    return not (
        ((key := metadata.user_api_key_hash) is None or key in _known or _sound(key))
        and ((name := metadata.user_api_key_alias) is None or not _looks_secret(name))
        and ((name := metadata.user_api_key_end_user_id) is None or not _looks_secret(name))
        and ((name := metadata.user_api_key_user_id) is None or not _looks_secret(name))
        and ((name := metadata.user_api_key_team_id) is None or not _looks_secret(name))
        and ((name := metadata.user_api_key_team_alias) is None or not _looks_secret(name))
        and ((name := metadata.user_api_key_org_id) is None or not _looks_secret(name))
        and ((name := metadata.user_api_key_project_id) is None or not _looks_secret(name))
    )


def _looks_secret(name: str | int) -> bool:
    return type(name) is str and _SIGN in name and is_secret(name)


def _sound(value: str | int | None) -> bool:
    if value is None or value in _known:
        return True
    if type(value) is str and key_hash(value) == value:
        if len(_known) >= _KNOWN:
            _known.clear()
        _known.add(value)
        return True
    return value == ""


def _hash_in(members: dict[str, Any], hashes: tuple[str, ...], names: tuple[str, ...]) -> None:
    for name in (*hashes, *names):
        if (raw := members.get(name)) is None:
            continue
        value = msgspec.json.decode(cast("bytes", raw))
        if value is None or not isinstance(value, str | int) or value == "":
            continue
        text = str(value)
        if name in hashes or is_secret(text):
            members[name] = msgspec.Raw(_encode(key_hash(text)))
