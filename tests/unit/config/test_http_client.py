"""A lost connection is an error of httpx in every loop, and an error of ours keeps its class."""

from collections.abc import Callable

import httpx
import pytest

from connectors.config.http_client import HttpClient
from meterbridge_litellm.http_clients import AsyncHttp
from meterbridge_sdk import BillingUnavailable, MeterbridgeClient


def closed(_: httpx.Request) -> httpx.Response:
    """What anyio 4 does with a connection that uvloop has closed: its socket is None."""
    None.getpeername()  # type: ignore[attr-defined]
    raise AssertionError


def ours(_: httpx.Request) -> httpx.Response:
    None.decode()  # type: ignore[attr-defined]
    raise AssertionError


@pytest.mark.parametrize("client", [HttpClient, AsyncHttp])
async def test_a_connection_that_is_closed_while_it_is_opened_is_a_lost_connection(
    client: Callable[..., httpx.AsyncClient],
) -> None:
    async with client(1.0, transport=httpx.MockTransport(closed)) as http:
        with pytest.raises(httpx.ReadError):
            await http.get("https://a/x")
        with pytest.raises(httpx.ReadError):
            async with http.stream("POST", "https://a/x"):
                raise AssertionError


@pytest.mark.parametrize("client", [HttpClient, AsyncHttp])
async def test_an_error_of_ours_is_not_taken_for_a_lost_connection(client: Callable[..., httpx.AsyncClient]) -> None:
    async with client(1.0, transport=httpx.MockTransport(ours)) as http:
        with pytest.raises(AttributeError, match="decode"):
            await http.get("https://a/x")


async def test_the_sdk_tells_a_lost_connection_from_an_error_of_its_own() -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(closed)) as http:
        with pytest.raises(BillingUnavailable, match="connection_lost"):
            await MeterbridgeClient(http, "https://a", "key", attempts=1).get_limits("org")
    async with httpx.AsyncClient(transport=httpx.MockTransport(ours)) as http:
        with pytest.raises(AttributeError, match="decode"):
            await MeterbridgeClient(http, "https://a", "key", attempts=1).get_limits("org")
