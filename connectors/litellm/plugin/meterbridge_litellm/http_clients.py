"""The HTTP clients of the plugin. They take nothing from the environment of the proxy.

A wrong address or a proxy in between may answer with a body that does not end, or that comes byte by byte. So each client
reads only so much of a response, and only for so long.
"""

import asyncio
import ssl
import time
from typing import Any, Final

import httpx

#: Bytes of an unpacked response; the largest of Meterbridge's names up to 500 refused records.
MAX_BYTES: Final = 4 << 20
_TOO_LONG: Final = f"the response has more than {MAX_BYTES} bytes"
_TOO_SLOW: Final = "the response did not end in time"


class BlockingHttp(httpx.Client):
    """A client for threads. `timeout_s`: limit between two bytes, and of the body of a response."""

    def __init__(self, timeout_s: float, **options: Any) -> None:
        super().__init__(timeout=timeout_s, trust_env=False, verify=_authorities(), **options)
        self._body_s = timeout_s

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """See httpx. Raises: httpx.ReadTimeout, ReadError: also for a body that is too slow or too large."""
        response = super().send(request, **{**options, "stream": True})
        ends, body = time.monotonic() + self._body_s, bytearray()
        try:
            for piece in response.iter_bytes():
                _add(body, piece, request)
                if time.monotonic() > ends:
                    raise httpx.ReadTimeout(_TOO_SLOW, request=request)
        finally:
            response.close()
        return _whole(response, body)


class AsyncHttp(httpx.AsyncClient):
    """A client for the event loop of the proxy. `timeout_s`: limit of a whole request; `options`: of `httpx.AsyncClient`."""

    def __init__(self, timeout_s: float, **options: Any) -> None:
        super().__init__(timeout=timeout_s, trust_env=False, verify=_authorities(), **options)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """See httpx. Raises: httpx.ReadTimeout, ReadError: also for a response that is too slow or too large, and if uvloop
        has closed the connection before anyio 4 asks its socket for the address of the peer; anyio raises an
        AttributeError of `None` then.
        """
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"]):
                return await self._sent(request, options)
        except TimeoutError as error:
            raise httpx.ReadTimeout(_TOO_SLOW, request=request) from error
        except AttributeError as error:
            if error.obj is not None or error.name != "getpeername":
                raise
            raise httpx.ReadError("the connection was reset while it was opened", request=request) from error

    async def _sent(self, request: httpx.Request, options: dict[str, Any]) -> httpx.Response:
        response, body = await super().send(request, **{**options, "stream": True}), bytearray()
        try:
            async for piece in response.aiter_bytes():
                _add(body, piece, request)
        finally:
            await response.aclose()
        return _whole(response, body)


def _add(body: bytearray, piece: bytes, request: httpx.Request) -> None:
    body += piece
    if len(body) > MAX_BYTES:
        raise httpx.ReadError(_TOO_LONG, request=request)


def _whole(response: httpx.Response, body: bytearray) -> httpx.Response:
    """Return the response with its unpacked body."""
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
    return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)


def _authorities() -> ssl.SSLContext:
    """As in Python before 3.13: certificates of private authorities often lack what RFC 5280 asks for."""
    context = httpx.create_ssl_context(trust_env=False)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
