"""Reads the configuration of a running LiteLLM proxy through its admin API, which needs the master key.

The proxy returns its version, the configured callbacks with a part of their environment, and the loggers that it made
from them. It does not show `litellm_settings` and `callback_settings`: retries, headers, timeouts and switches are only
in its file. (`/config/yaml` has the right name, but returns `{"hello": "world"}`.) Checked with 1.106.2 and 1.109.1.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import httpx
import msgspec

from connectors.config.addresses import bare_url
from connectors.litellm.config import callback_of
from connectors.litellm.seen import Callback, Proxy
from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected, Unavailable

_LISTED = {"success": "success_callback", "failure": "failure_callback", "success_and_failure": "callbacks"}
T = TypeVar("T")


class _Row(msgspec.Struct):
    """A callback; `read_only`: it runs under a name that the configuration does not have."""

    name: str
    type: str
    variables: dict[str, Any] = {}
    read_only: bool = False


class _Callbacks(msgspec.Struct):
    callbacks: list[_Row]


class _Readiness(msgspec.Struct):
    litellm_version: str | None = None
    success_callbacks: list[str] | str | None = None


async def ask_proxy(http: httpx.AsyncClient, url: str, master_key: str) -> Proxy:
    """Return the proxy at `url`.

    Raises:
        Unavailable: `litellm_unreachable`, `litellm_bad_answer`.
        Rejected: `litellm_key_refused`.
    """
    url, headers = url.rstrip("/"), {"Authorization": f"Bearer {master_key}"}
    callbacks = await _get(http, f"{url}/get/config/callbacks", headers, _Callbacks)
    try:
        ready = await _get(http, f"{url}/health/readiness/details", headers, _Readiness)
    except Unavailable:
        # Older versions give the same response here.
        ready = await _get(http, f"{url}/health/readiness", headers, _Readiness)
    running = ready.success_callbacks
    return Proxy(
        callbacks=tuple(_callbacks(callbacks.callbacks)),
        version=ready.litellm_version,
        running=None if ready.litellm_version is None else frozenset(running if isinstance(running, list) else ()),
    )


def _callbacks(rows: Iterable[_Row]) -> Iterable[Callback]:
    """Yield one callback per name. A callback with an own name is listed again, read-only, as the logger that was made
    of it.
    """
    listed: dict[str, tuple[str, ...]] = {}
    variables: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if not row.read_only:
            listed[row.name] = (*listed.get(row.name, ()), _LISTED.get(row.type, "callbacks"))
            variables[row.name] = row.variables
    generic = any(row.read_only and row.name == "generic_api" for row in rows)
    for name, settings in listed.items():
        made_here = generic and not variables[name] and "." not in name
        # The rest of its entry in `callback_settings` is not visible.
        yield callback_of(name, settings, {"callback_type": "generic_api"} if made_here else None, variables[name])


async def _get(http: httpx.AsyncClient, url: str, headers: Mapping[str, str], shape: type[T]) -> T:
    place = bare_url(url)
    try:
        answer = await http.get(url, headers=headers)
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise Unavailable("litellm_unreachable", f"{place}: {type(error).__name__}") from error
    if answer.status_code in {400, 401, 403}:  # 400: the proxy has no database to look up an unknown key
        raise Rejected(
            "litellm_key_refused", f"{place} answered {answer.status_code}; LITELLM_MASTER_KEY is not its master key"
        )
    try:
        if not answer.is_success:
            raise Unavailable("litellm_bad_answer", f"{place} answered {answer.status_code}")
        return msgspec.json.decode(answer.content, type=shape)
    except UNDECODABLE as error:
        raise Unavailable("litellm_bad_answer", f"{place} did not answer as LiteLLM does") from error
