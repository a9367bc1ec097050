"""How a call is found again in LiteLLM's database, whose ids differ from those of its callbacks.

The `id` of an answer from the cache ends in a moment that the callback and the database take separately; a finished
batch or background response has a row of its own in the database, named after its job; times there have milliseconds.
"""

from hashlib import md5, sha256
from re import compile as re_compile

from streams.core.metering.job_id import SUFFIXES

_CACHE_HIT = re_compile(r"_cache_hit[0-9.]*$")
_JOB = re_compile(f"({'|'.join(SUFFIXES)})$")
#: LiteLLM 1.99 wrote this where the provider gave no id: many calls share it.
_NO_ID = "None"
#: Bytes of UTF-8; clients choose call ids, and a longer one would not fit into an index.
MAX_BYTES = 255


def alias_of(call_id: str, request_id: str) -> str:
    """The call's alias; `""` when it has neither id. Over `MAX_BYTES` it is `sha256:<hex>`."""
    alias = call_id or _CACHE_HIT.sub("", request_id)
    encoded = alias.encode()
    return alias if len(encoded) <= MAX_BYTES else "sha256:" + sha256(encoded).hexdigest()


def base_of(request_id: str) -> str:
    """What the request ids of one call have in common: without LiteLLM's endings; `""` where it names nothing."""
    base = _JOB.sub("", _CACHE_HIT.sub("", request_id))
    return "" if base == _NO_ID else base


def base_key(request_id: str) -> str:
    """`base_of` as the index of the usage log has it: MD5 as hex; `""` stays `""`.

    An index, not a proof: what it finds is compared by `base_of`.
    """
    base = base_of(request_id)
    return md5(base.encode(), usedforsecurity=False).hexdigest() if base else ""


def names_a_job(request_id: str) -> bool:
    """Whether it is LiteLLM's own row about a finished batch or background response."""
    return _JOB.search(request_id) is not None
