"""How a call is found again in LiteLLM's database, whose ids differ from those of its callbacks.

The `id` of an answer from the cache ends in a moment that the callback and the database take separately; times there
have milliseconds. Call id, or request id without that ending, and the start to 2 ms name the same call in both.
"""

from hashlib import sha256
from re import compile as re_compile

_CACHE_HIT = re_compile(r"_cache_hit[0-9.]*$")
#: Bytes of UTF-8; clients choose call ids, and a longer one would not fit into an index.
MAX_BYTES = 255


def alias_of(call_id: str, request_id: str) -> str:
    """The call's alias; `""` when it has neither id. Over `MAX_BYTES` it is `sha256:<hex>`."""
    alias = call_id or _CACHE_HIT.sub("", request_id)
    encoded = alias.encode()
    return alias if len(encoded) <= MAX_BYTES else "sha256:" + sha256(encoded).hexdigest()
