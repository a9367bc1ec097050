"""Stripe's mock server, which validates requests with Stripe's OpenAPI document and answers with its examples.

Source: https://github.com/stripe/stripe-mock. It is built once from the Go module proxy, at a fixed version, into a folder of this
machine's user.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.support.ports import free_port

VERSION = "v0.203.0"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meterbridge" / f"stripe-mock-{VERSION}"
_BUILD_S, _START_S = 900, 60


class NoGoError(Exception):
    """There is no Go to build the server with."""


async def binary() -> Path:
    """The server's program. Raises: NoGoError; RuntimeError: it cannot be built."""
    program = _CACHE / "stripe-mock"
    if not program.exists():
        go = shutil.which("go")
        if go is None:
            raise NoGoError
        building = await asyncio.create_subprocess_exec(
            go, "install", f"github.com/stripe/stripe-mock@{VERSION}", env={**os.environ, "GOBIN": str(_CACHE)}
        )
        if await asyncio.wait_for(building.wait(), _BUILD_S):
            raise RuntimeError("stripe-mock cannot be built: see above")
    return program


@asynccontextmanager
async def stripe_mock() -> AsyncIterator[str]:
    """The address of a running server; it ends with the context."""
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        str(await binary()), "-http-addr", address, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(_START_S), httpx.AsyncClient(trust_env=False) as http:
            while not await _answers(http, address):
                await asyncio.sleep(0.1)
        yield f"http://{address}"
    finally:
        process.terminate()
        await process.wait()


async def _answers(http: httpx.AsyncClient, address: str) -> bool:
    try:
        await http.get(f"http://{address}/v1/charges", headers={"Authorization": "Bearer sk_test_1"})
    except httpx.TransportError:
        return False
    return True
