"""The HTTP client of all requests of Meterbridge to other services."""

import ssl
from functools import cache
from typing import Any

import httpx

from connectors.config.certificate_checks import as_other_clients_check


class HttpClient(httpx.AsyncClient):
    """httpx's client with our rule for certificates, and with an error of httpx for every lost connection.

    httpx takes proxies and certificate authorities from the environment, unless `trust_env` is False.

    Args:
        timeout_s: limit between two bytes.
        options: of `httpx.AsyncClient`.
    """

    def __init__(self, timeout_s: float, **options: Any) -> None:
        super().__init__(timeout=timeout_s, verify=_authorities(), **options)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """See httpx. Raises: httpx.ReadError: also if uvloop has closed the connection before anyio 4 asks its socket for the
        address of the peer; anyio raises an AttributeError of `None` then.
        """
        try:
            return await super().send(request, **options)
        except AttributeError as error:
            if error.obj is not None or error.name != "getpeername":
                raise
            raise httpx.ReadError("the connection was reset while it was opened", request=request) from error


@cache
def _authorities() -> ssl.SSLContext:
    """Return the trusted certificate authorities. They need 0.8 MiB of memory, so all clients of a process share them."""
    return as_other_clients_check(httpx.create_ssl_context())
