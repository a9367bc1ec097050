"""Connections that send no request, or read no response: they are bounded in time, in number and in memory."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from aiohttp import web

from connectors.http import connections
from connectors.http.unauthenticated_limits import Bounds, UnauthenticatedConnections
from schemas.reasons import FULL, FULL_OF_ONE, SILENT
from tests.support.eventually import PATIENCE, within
from tests.support.wires import HEAD_S, POST, Wire, connected, serving

PROBE = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(Bounds(2000, 2000)) as port:
        yield port


async def trickle(wire: Wire) -> float:
    """Send a head that never ends, byte by byte; returns the seconds until the server closed and gave the reason.

    The answer is read at once: a byte that arrives after the server has closed would reset the connection.
    """
    begun = time.monotonic()
    ended = asyncio.ensure_future(wire.reader.readuntil(b"}"))
    await wire.say(POST)
    async with within(5):
        while not ended.done():
            await wire.say("X")
            await asyncio.wait({ended}, timeout=0.02)
    head, _, body = ended.result().partition(b"\r\n\r\n")
    assert b" 408 " in head
    assert json.loads(body)["reason"] == "head_too_slow"
    return time.monotonic() - begun


async def test_a_slow_head_is_closed_in_time_even_if_bytes_keep_arriving(port: int) -> None:
    """Slowloris: every byte shows activity, so only the total time can be bounded."""
    async with connected(port) as wire:
        assert await trickle(wire) > HEAD_S * 0.9


async def test_a_later_head_on_the_same_connection_is_bounded_too(port: int) -> None:
    async with connected(port) as wire:
        await wire.say(POST + "Content-Length: 2\r\n\r\nab")
        assert (await wire.answer())[0] == 200
        assert await trickle(wire) > HEAD_S * 0.9


async def slow_heads(port: int, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    wires = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    for _, writer in wires:
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nX-")
    return wires


async def test_a_thousand_slow_heads_delay_no_other_request() -> None:
    """Their limit is an hour here: none of them has ended when the other request is answered."""
    async with serving(Bounds(2000, 2000), head_s=3600) as port:
        wires = await slow_heads(port, 1000)
        async with connected(port) as wire:
            begun = time.thread_time()  # of the server too: a pause of the machine does not count
            await wire.say(POST + "Content-Length: 2\r\n\r\nab")
            assert (await wire.answer())[0] == 200
            assert time.thread_time() - begun < 1
        assert not any(reader.at_eof() for reader, _ in wires)
        for _, writer in wires:
            writer.close()


async def test_each_of_many_slow_heads_is_closed(port: int) -> None:
    for reader, writer in await slow_heads(port, 100):
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 10 * PATIENCE)
        writer.close()


async def test_an_idle_connection_and_a_slow_body_are_not_closed_by_this_timer(port: int) -> None:
    """Senders keep their connections; a post on a connection that is closed at that moment would be lost."""
    async with connected(port) as wire:
        for _ in range(2):
            await wire.say(POST[:20])
            await asyncio.sleep(HEAD_S / 4)
            await wire.say(POST[20:] + "Content-Length: 2\r\n\r\na")
            await asyncio.sleep(HEAD_S * 1.5)
            await wire.say("b")
            assert (await wire.answer())[::2] == (200, b"2")
            await asyncio.sleep(HEAD_S * 1.5)


async def test_a_request_that_is_answered_slowly_is_not_taken_for_a_client_that_does_not_read(port: int) -> None:
    async with connected(port) as wire:
        await wire.say("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.reader.read(1), 4 * HEAD_S)


async def test_a_silent_connection_is_closed_in_time_and_an_authenticated_one_is_not() -> None:
    """Earlier connections that never sent a byte stayed open for an hour, and 150 of them blocked a process with 150
    descriptors.
    """
    closed = list[str]()
    async with serving(Bounds(10, 10), closed) as port, connected(port) as silent, connected(port) as known:
        await known.say(POST + "Content-Length: 2\r\n\r\nab")
        assert (await known.answer())[0] == 200
        async with connected(port) as probing:
            await probing.say("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await probing.answer())[0] == 200
            begun = time.monotonic()
            assert await silent.closed() and await probing.closed()
            assert time.monotonic() - begun > HEAD_S / 2
        await known.say(POST + "Content-Length: 2\r\n\r\nab")
        assert (await known.answer())[0] == 200
    assert closed == [SILENT, SILENT]


@pytest.mark.parametrize(("bounds", "cause"), [(Bounds(5, 100), FULL), (Bounds(100, 5), FULL_OF_ONE)], ids=str)
async def test_if_all_places_are_taken_a_silent_connection_is_closed_for_a_new_one(bounds: Bounds, cause: str) -> None:
    closed = list[str]()
    async with serving(bounds, closed, head_s=3600) as port:
        wires = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        async with connected(port) as wire:
            for _ in range(3):
                await wire.say(POST + "Content-Length: 2\r\n\r\nab")
                assert (await wire.answer())[0] == 200
            assert closed.count(cause) == 16
            for reader, writer in wires[:16]:
                assert await asyncio.wait_for(reader.read(), 5 * PATIENCE) == b""
                writer.close()
            more = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
            await wire.say(POST + "Content-Length: 2\r\n\r\nab")
            assert (await wire.answer())[0] == 200
        for _, writer in (*wires, *more):
            writer.close()


@asynccontextmanager
async def deaf(port: int, probes: int = 100) -> AsyncIterator[socket.socket]:
    """A client that asks, and reads no response: the buffers on both sides are full of them."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, PROBE * probes)
        yield client


async def test_a_client_that_does_not_read_its_responses_is_closed_in_time() -> None:
    """Earlier such a connection was never closed: it was not idle, and `close` waits until all is read."""
    closed = list[str]()
    async with serving(Bounds(10, 10), closed) as port, deaf(port) as client, connected(port) as known:
        await known.say(POST + "Content-Length: 2\r\n\r\nab")
        assert (await known.answer())[0] == 200
        async with within(5):
            while SILENT not in closed:
                await asyncio.sleep(HEAD_S / 4)
        with pytest.raises(ConnectionError):
            while True:
                await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(client, PROBE), 5 * PATIENCE)
        await known.say(POST + "Content-Length: 2\r\n\r\nab")
        assert (await known.answer())[0] == 200
    assert closed == [SILENT]


@pytest.mark.parametrize(("bounds", "cause"), [(Bounds(5, 100), FULL), (Bounds(100, 5), FULL_OF_ONE)], ids=str)
async def test_if_clients_that_do_not_read_have_all_places_a_new_one_gets_a_place(bounds: Bounds, cause: str) -> None:
    """In an earlier version, 2,048 such clients occupied all places, and the port accepted no further client."""
    closed = list[str]()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(bounds, closed, head_s=60))
        for _ in range(5):
            await stack.enter_async_context(deaf(port))
        for _ in range(3):
            async with connected(port) as wire:
                await wire.say(POST + "Content-Length: 2\r\n\r\nab")
                assert (await wire.answer())[0] == 200
    assert set(closed) == {cause}


LARGE = PROBE[:-2] + b"".join(b"X-%d: %b\r\n" % (number, b"a" * 8000) for number in range(60)) + b"\r\n"


async def test_nothing_is_read_from_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier 32 requests with heads of half a megabyte waited on each connection: forty clients took 430 MiB."""
    received = Received(monkeypatch)
    async with serving(Bounds(10, 10), head_s=60) as port, deaf(port, probes=1) as client, within(30):
        while not any(connection.writing_paused for connection in received.by):
            await asyncio.get_running_loop().sock_sendall(client, PROBE)
            await asyncio.sleep(0.01)
        assert await received.of_large(client) < 1 << 20


async def test_few_requests_are_read_while_another_one_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    received = Received(monkeypatch)
    async with serving(Bounds(10, 10), head_s=60) as port, deaf(port, probes=0) as client:
        await asyncio.get_running_loop().sock_sendall(client, PROBE.replace(b"/health", b"/wait"))
        assert await received.of_large(client) < 2 << 20


class Received:
    """What the server's connections receive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.by = set[connections._Connection]()
        receive = connections._Connection.data_received

        def counted(connection: connections._Connection, data: bytes) -> None:
            self.count += len(data)
            self.by.add(connection)
            receive(connection, data)

        monkeypatch.setattr(connections._Connection, "data_received", counted)

    async def of_large(self, client: socket.socket) -> int:
        """Return how many bytes are received of forty requests with large heads."""
        self.count = 0
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(client, LARGE * 40), 1)
        return self.count


async def test_the_unread_rest_of_a_refused_body_is_never_read(port: int) -> None:
    async with connected(port) as wire:
        await wire.say("POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        status, headers, _ = await wire.answer()
        assert (status, headers["connection"]) == (401, "close")
        sent = 0
        with pytest.raises(ConnectionError):
            while sent < 100_000_000:
                wire.writer.write(b"x" * (1 << 20))
                await asyncio.wait_for(wire.writer.drain(), 5 * PATIENCE)
                sent += 1 << 20
        assert sent < 20 << 20


async def test_the_refusal_of_a_body_that_is_still_arriving_reaches_the_sender(port: int) -> None:
    """Senders write head and body one after the other, and read only then."""
    for _ in range(20):
        async with connected(port) as wire:
            await wire.say("POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
            await asyncio.sleep(0.01)
            await wire.say(b"x" * 100_000)
            assert (await wire.answer())[0] == 401


async def test_a_sender_that_is_refused_repeatedly_waits_for_each_answer_and_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock stands: all guesses are of one second, however slow the machine is."""
    wrong, waits, answered = list[int](), list[float](), UnauthenticatedConnections.answered

    def seen(unauthenticated: UnauthenticatedConnections, request: web.BaseRequest, status: int) -> float:
        waits.append(answered(unauthenticated, request, status))
        return waits[-1]

    monkeypatch.setattr(UnauthenticatedConnections, "answered", seen)
    async with serving(Bounds(100, 100), wrong=wrong, head_s=3600, monotonic=lambda: 0.0) as port:

        async def guess() -> float:
            begun = time.monotonic()
            async with connected(port) as wire:
                await wire.say("POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                assert (await wire.answer())[0] == 401
            return time.monotonic() - begun

        waited = sorted(await asyncio.gather(*(guess() for _ in range(30))))
        assert (waits.count(0) >= 10, waited[-15] > 0.9, len(wrong)) == (True, True, 30)
        async with connected(port) as wire:
            await wire.say(POST + "Content-Length: 2\r\n\r\nab")
            assert (await wire.answer())[0] == 200
            assert len(waits) == 30, "its answer is not one that may be delayed"
