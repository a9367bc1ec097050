"""Reads responses in bounded memory: a wrong server or proxy may send one that does not end, or that unpacks to gigabytes."""

from typing import Final

import httpx

#: Bytes of an unpacked response. Lago's largest are pages of a hundred events or invoices, some megabytes.
MAX_BYTES: Final = 64 << 20
#: Headers that describe the bytes on the wire, and not the unpacked ones.
_OF_THE_WIRE: Final = (b"content-encoding", b"content-length", b"transfer-encoding")


class ResponseTooLarge(httpx.ReadError):
    """The response has more than `MAX_BYTES`, and was not read to its end."""


async def bounded_response(http: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request; return the response with its whole body. Raises: httpx.RequestError, also ResponseTooLarge."""
    response = await http.send(request, stream=True)
    try:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_BYTES:
                raise ResponseTooLarge(f"the response has more than {MAX_BYTES} bytes", request=request)
    finally:
        await response.aclose()
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_THE_WIRE]
    return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=request)
