"""Stands between Kafka clients and librdkafka's in-process broker, and mends the one thing that clients refuse.

The broker ends a transaction with a control batch as Kafka does (KIP-98) but leaves its checksum zero; aiokafka
verifies checksums and would read no further. Everything else passes unchanged.
"""

import asyncio
import re
from contextlib import suppress

from aiokafka.record.util import calc_crc32c

_SIZE_BYTES = 4
#: The broker's control batch from its length (66) to its attributes (transactional, control), with a checksum of
#: zero: https://kafka.apache.org/documentation/#recordbatch. No other bytes of an answer look like it.
_CONTROL_BATCH = re.compile(rb"\x00\x00\x00\x42.{4}\x02\x00\x00\x00\x00\x00\x30", re.DOTALL)
#: Offsets from the length field: of the checksum, of what it covers, and of the batch's end.
_CRC, _COVERED, _END = 9, 13, 70


def mended(answer: bytes) -> bytes:
    """An answer of the broker with the checksums that it left out."""
    if _CONTROL_BATCH.search(answer) is None:
        return answer
    whole = bytearray(answer)
    for found in _CONTROL_BATCH.finditer(answer):
        at = found.start()
        checksum = calc_crc32c(answer[at + _COVERED : at + _END])
        whole[at + _CRC : at + _COVERED] = checksum.to_bytes(4, "big")
    return bytes(whole)


class Relay:
    """A listener on loopback that passes each connection on to the broker.

    Args:
        port: where the broker itself listens.
    """

    def __init__(self, port: int) -> None:
        self._broker_port = port
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Cut every connection."""
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
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            broker, to_broker = await asyncio.open_connection("127.0.0.1", self._broker_port)
            ways = [asyncio.ensure_future(_requests(client, to_broker)), asyncio.ensure_future(_answers(broker, to_client))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                to_broker.close()
        to_client.close()


async def _requests(client: asyncio.StreamReader, to_broker: asyncio.StreamWriter) -> None:
    while some := await client.read(1 << 16):
        to_broker.write(some)
        await to_broker.drain()


async def _answers(broker: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    """Answer by answer: a batch is never cut in two."""
    while True:
        size = await broker.readexactly(_SIZE_BYTES)
        answer = await broker.readexactly(int.from_bytes(size, "big"))
        to_client.write(size + mended(answer))
        await to_client.drain()
