"""The HTTP clients of the plugin. They take nothing from the environment of the proxy."""

import ssl
from typing import Any

import httpx


def blocking_http(timeout_s: float) -> httpx.Client:
    """Make a client for threads. `timeout_s`: limit between two bytes."""
    return httpx.Client(timeout=timeout_s, trust_env=False, verify=_authorities())


class AsyncHttp(httpx.AsyncClient):
    """A client for the event loop of the proxy. `timeout_s`: limit between two bytes; `options`: of `httpx.AsyncClient`."""

    def __init__(self, timeout_s: float, **options: Any) -> None:
        super().__init__(timeout=timeout_s, trust_env=False, verify=_authorities(), **options)

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


def _authorities() -> ssl.SSLContext:
    """As in Python before 3.13: certificates of private authorities often lack what RFC 5280 asks for."""
    context = httpx.create_ssl_context(trust_env=False)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
