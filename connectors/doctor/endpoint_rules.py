"""Asks the address to which LiteLLM posts whether an ingress answers there."""

from typing import Final

import httpx

from connectors.config.addresses import bare_url
from connectors.doctor.catalogue import Finding
from connectors.litellm.seen import CallbackKind, Proxy, is_unseen

#: Answers of a proxy in between, which says nothing about the server behind it.
_IN_BETWEEN: Final = (401, 403, 407, 429)
_SERVER_ERRORS: Final = 500


async def judge_endpoints(proxy: Proxy, http: httpx.AsyncClient) -> list[Finding]:
    """Return a finding for each visible address where no ingress answers. Nothing is posted: an ingress answers a GET of this path
    with 405.
    """
    return [
        finding
        for callback in proxy.of(CallbackKind.GENERIC)
        if callback.reaches_us() and callback.address and not is_unseen(callback.address)
        if (finding := await _asked(callback.name, callback.address, http)) is not None
    ]


async def _asked(name: str, address: str, http: httpx.AsyncClient) -> Finding | None:
    place = bare_url(address)
    try:
        answer = await http.get(address)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return Finding("endpoint_unanswered", f"{name}: nothing answers at {place} from here ({type(error).__name__}).")
    if answer.status_code == httpx.codes.METHOD_NOT_ALLOWED and "POST" in answer.headers.get("allow", ""):
        return None
    said = f"HTTP {answer.status_code}"
    if answer.status_code in _IN_BETWEEN or answer.status_code >= _SERVER_ERRORS:
        return Finding("endpoint_unanswered", f"{name}: no ingress answers at {place} from here ({said}).")
    return Finding("endpoint_not_ours", f"{name}: another server answers at {place} ({said}).")
