"""A relay between Kafka clients and librdkafka's in-process broker, which corrects two faults of the broker.

The broker ends a transaction with a control batch as Kafka does (KIP-98) but leaves its checksum zero; aiokafka
verifies checksums and would stop there. Also, a fetch that finds no record is answered only after its whole wait, even
if records arrive earlier. The relay shortens such waits. Everything else passes unchanged.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from aiokafka.record.util import calc_crc32c

#: How long a fetch may wait for records, milliseconds.
WAIT_MS: Final = 50

#: The broker's control batch from its length (66) to its attributes (transactional, control), with a checksum of
#: zero: https://kafka.apache.org/documentation/#recordbatch. No other bytes of an answer look like it.
_CONTROL_BATCH: Final = re.compile(rb"\x00\x00\x00\x42.{4}\x02\x00\x00\x00\x00\x00\x30", re.DOTALL)
#: Offsets from the length field: of the checksum, of what it covers, and of the batch's end.
_CRC, _COVERED, _END = 9, 13, 70
#: A request: key, version (int16), correlation id (int32), client id (int16 length and text); a fetch goes on with
#: replica id and wait (int32). Later versions are laid out differently: https://kafka.apache.org/protocol#protocol_messages.
_FETCH, _LAST_VERSION, _CLIENT_ID = 1, 11, 8


def fixed(answer: bytes) -> bytes:
    """Return an answer of the broker with the missing checksums added."""
    if _CONTROL_BATCH.search(answer) is None:
        return answer
    whole = bytearray(answer)
    for match in _CONTROL_BATCH.finditer(answer):
        at = match.start()
        checksum = calc_crc32c(answer[at + _COVERED : at + _END])
        whole[at + _CRC : at + _COVERED] = checksum.to_bytes(4, "big")
    return bytes(whole)


def hurried(request: bytes) -> bytes:
    """Return a request; if it is a fetch, it waits at most `WAIT_MS`."""
    if _int(request, 0, 2) != _FETCH or _int(request, 2, 2) > _LAST_VERSION:
        return request
    at = _CLIENT_ID + 2 + max(0, _int(request, _CLIENT_ID, 2)) + 4
    wait_ms = min(_int(request, at, 4), WAIT_MS)
    return request[:at] + wait_ms.to_bytes(4, "big") + request[at + 4 :]


class Relay:
    """A listener on loopback that forwards each connection to the broker.

    Args:
        port: the broker's own port.
    """

    def __init__(self, port: int) -> None:
        self._broker_port = port
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Start to listen; return the port."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening, and close every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _pass(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)
        with suppress(OSError, asyncio.CancelledError):
            broker, to_broker = await asyncio.open_connection("127.0.0.1", self._broker_port)
            ways = {
                asyncio.ensure_future(_frames(client, to_broker, hurried)),
                asyncio.ensure_future(_frames(broker, to_client, fixed)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                to_broker.close()
        to_client.close()


async def _frames(source: asyncio.StreamReader, sink: asyncio.StreamWriter, change: Callable[[bytes], bytes]) -> None:
    """Forward whole requests or answers until the source ends."""
    with suppress(asyncio.IncompleteReadError):
        while True:
            size = await source.readexactly(4)
            frame = await source.readexactly(_int(size, 0, 4))
            sink.write(size + change(frame))
            await sink.drain()


def _int(frame: bytes, at: int, size: int) -> int:
    return int.from_bytes(frame[at : at + size], "big", signed=True)
