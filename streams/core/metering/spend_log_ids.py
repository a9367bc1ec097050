"""The ids of a call in LiteLLM's database, which differ from the ids of its callbacks.

The `id` of an answer from the cache ends with a timestamp that callback and database take separately. A finished batch
or background response has a row of its own in the database, named after its job. Times there have milliseconds.
"""

from hashlib import md5
from re import compile as re_compile

from schemas.bounded_name import bounded_name
from streams.core.metering.job_id import without_suffix

_CACHE_HIT = re_compile(r"_cache_hit[0-9.]*$")
#: LiteLLM 1.99 wrote this if the provider returned no id, so many calls share it.
_NO_ID = "None"


def alias_of(call_id: str, request_id: str) -> str:
    """Return the call's alias, truncated like a name; `""` if it has neither id."""
    return bounded_name(call_id or _CACHE_HIT.sub("", request_id))


def base_of(request_id: str) -> str:
    """Return the common part of one call's request ids, without LiteLLM's suffixes; `""` if nothing is left."""
    base = without_suffix(_CACHE_HIT.sub("", request_id))
    return "" if base == _NO_ID else base


def base_key(request_id: str) -> str:
    """Return `base_of` in the form of the usage log's index: MD5 as hex; `""` stays `""`.

    The index only finds candidates; the caller compares them by `base_of`.
    """
    base = base_of(request_id)
    return md5(base.encode(), usedforsecurity=False).hexdigest() if base else ""


def is_cache_hit(request_id: str) -> bool:
    """Return whether the id says that the answer came from LiteLLM's cache."""
    return _CACHE_HIT.search(request_id) is not None


def names_a_job(request_id: str) -> bool:
    """Return whether it is LiteLLM's own row about a finished batch or background response."""
    return without_suffix(request_id) != request_id
