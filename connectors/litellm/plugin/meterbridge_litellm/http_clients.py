"""The HTTP clients of the plugin. They take nothing from the environment of the proxy.

A wrong address or a proxy in between may answer with a body that does not end, or that comes byte by byte. So each client
reads only so much of a response, and only for so long.
"""

import asyncio
import contextlib
import math
import socket
import ssl
import threading
import time
from typing import Any, Final

import httpx

#: Bytes of an unpacked response; the largest of Meterbridge's names up to 500 refused records.
MAX_BYTES: Final = 4 << 20
_TOO_LONG: Final = f"the response has more than {MAX_BYTES} bytes"
_TOO_SLOW: Final = "the response did not end in time"
#: Events of httpcore with a new connection: its "trace" extension.
_OPENED: Final = ("connection.connect_tcp.complete", "connection.start_tls.complete")


class BlockingHttp(httpx.Client):
    """A client for one thread. `timeout_s`: limit of a whole request.

    httpx limits only the time between two bytes. So a second thread cuts the connection of a request that is late. It is started
    with the client: a process that ends can start none.
    """

    def __init__(self, timeout_s: float, **options: Any) -> None:
        super().__init__(timeout=timeout_s, trust_env=False, verify=_authorities(), **options)
        self._changed = threading.Condition()  # protects the following attributes
        self._ends = math.inf
        self._late = self._closed = False
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._cut_late_ones, name="meterbridge-deadline", daemon=True).start()

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """See httpx. Raises: httpx.ReadTimeout, ReadError: also for a response that is too slow or too large."""
        request.extensions = {**request.extensions, "trace": self._opened}
        with self._changed:
            self._ends, self._late = time.monotonic() + request.extensions["timeout"]["read"], False
            self._changed.notify()
        try:
            return self._sent(request, options)
        except httpx.TransportError as error:
            if not self._late:
                raise
            raise httpx.ReadTimeout(_TOO_SLOW, request=request) from error
        finally:
            with self._changed:
                self._ends = math.inf

    def close(self) -> None:
        """See httpx."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        super().close()

    def _sent(self, request: httpx.Request, options: dict[str, Any]) -> httpx.Response:
        response, body = super().send(request, **{**options, "stream": True}), bytearray()
        try:
            for piece in response.iter_bytes():
                _add(body, piece, request)
        finally:
            response.close()
        if self._late:  # the end of the connection may look like the end of the body
            raise httpx.ReadTimeout(_TOO_SLOW, request=request)
        return _whole(response, body)

    def _opened(self, event: str, info: dict[str, Any]) -> None:
        """Remember the socket of a new connection; httpcore calls this."""
        if event not in _OPENED or (opened := info["return_value"].get_extra_info("socket")) is None:
            return
        with self._changed:
            self._sockets = [one for one in self._sockets if one.fileno() >= 0] + [opened]
            if self._late:
                self._cut()

    def _cut_late_ones(self) -> None:
        with self._changed:
            while not self._closed:
                left_s = self._ends - time.monotonic()
                if left_s <= 0:
                    self._ends, self._late = math.inf, True
                    self._cut()
                else:
                    self._changed.wait(None if left_s == math.inf else left_s)

    def _cut(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):  # it is closed
                # Not the method of `ssl.SSLSocket`, which takes the object away that the other thread reads with.
                socket.socket.shutdown(one, socket.SHUT_RDWR)


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
