"""An attacker without a credential, in its own process: `python -m tests.support.stranger KIND WEBHOOKS API METRICS SECONDS`.

It sends at most 10 MB/s, from addresses that are not the honest senders'. It ends by itself and
prints what it sent.
"""

import asyncio
import gzip
import struct
import sys
import time
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.support.eventually import within

RATE = 10_000_000
USAGE = "/webhook/litellm/usage"
#: A few connections each from as many addresses.
SENDERS = 8
SILENT, SILENT_ON_METRICS, DEAF = 700, 200, 300
_CHUNK = 64 << 10


class Budget:
    """Bytes that may be sent, `RATE` a second; no burst is longer than a tenth of one."""

    def __init__(self) -> None:
        self._next = time.monotonic()
        self.sent = 0

    async def take(self, count: int) -> None:
        """Wait until `count` bytes more may be sent."""
        now = time.monotonic()
        self._next = max(self._next, now - 0.1) + count / RATE
        self.sent += count
        if self._next > now:
            await asyncio.sleep(self._next - now)


def bomb(size: int) -> bytes:
    """Return this number of blanks as gzip: one block is compressed, and repeated."""
    blanks, packer, checksum = b" " * (1 << 20), zlib.compressobj(9, wbits=-15), 0
    block = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(size >> 20):
        checksum = zlib.crc32(blanks, checksum)
    return gzip.compress(b"")[:10] + block * (size >> 20) + b"\x03\x00" + struct.pack("<II", checksum, size)


def head(path: str, length: int, *lines: str) -> bytes:
    """Return the head of a post."""
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {length}", *lines, "", ""]).encode()


#: A gzip member without contents, and requests whose responses are larger than all buffers.
EMPTY_MEMBER = gzip.compress(b"")
UNREAD = b"GET /health/metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
GZIP, SIGNED = "Content-Encoding: gzip", f"X-Webhook-Signature: sha256={'0' * 64}"


class Stranger:
    """Posts to two ports, and asks for metrics, until `until`, a moment of the monotonic clock."""

    def __init__(self, webhooks: int, api: int, metrics: int, until: float) -> None:
        self._ports = (webhooks, api)
        self._metrics = metrics
        self._until = until
        self.budget = Budget()
        self.answers: dict[str, int] = {}

    async def again_and_again(self, number: int, port: int, said: Callable[[int], bytes]) -> None:
        """Open one connection after the other, each for one post, and count the responses."""
        turn = number
        while time.monotonic() < self._until:
            turn += 1
            with suppress(OSError, TimeoutError):
                async with within(10):
                    await self._once(f"127.0.0.{2 + number % 8}", port, said(turn))

    async def _once(self, address: str, port: int, said: bytes) -> None:
        await self.budget.take(300)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        try:
            answered = asyncio.ensure_future(reader.readline())
            for at in range(0, len(said), _CHUNK):
                if answered.done():
                    break
                await self.budget.take(len(said[at : at + _CHUNK]))
                writer.write(said[at : at + _CHUNK])
                await writer.drain()
            status = (await answered)[9:12].decode() or "closed"
            self.answers[status] = self.answers.get(status, 0) + 1
        finally:
            writer.close()

    async def silent(self, number: int, port: int) -> None:
        """Silent connections; each is opened again when it is closed."""
        while time.monotonic() < self._until:
            with suppress(OSError):
                await self.budget.take(300)
                address = (f"127.0.0.{2 + number % 8}", 0)
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=address)
                try:
                    async with asyncio.timeout(max(0.01, self._until - time.monotonic())):
                        await reader.read()
                    self.answers["cut"] = self.answers.get("cut", 0) + 1
                except TimeoutError:
                    pass
                finally:
                    writer.close()
            await asyncio.sleep(0.1)

    async def deaf(self, number: int, port: int) -> None:
        """A connection that reads no response; it is opened again when it is closed."""
        while time.monotonic() < self._until:
            with suppress(OSError):
                await self.budget.take(300 + len(UNREAD))
                address = (f"127.0.0.{2 + number % 8}", 0)
                _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=address)
                try:
                    writer.transport.pause_reading()  # type: ignore[attr-defined]
                    writer.write(UNREAD)
                    async with asyncio.timeout(max(0.01, self._until - time.monotonic())):
                        while not writer.is_closing():
                            writer.write(b"\r\n")
                            await asyncio.sleep(0.5)
                    self.answers["cut"] = self.answers.get("cut", 0) + 1
                except TimeoutError:
                    pass
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.1)

    async def attack(self, kind: str) -> None:
        """See `KINDS`."""
        webhooks, api = self._ports
        paths = ((webhooks, USAGE), (webhooks, "/nope"), (api, "/customers/mapping"), (api, "/nope"))
        jobs: list[Awaitable[None]] = []
        print("begun", flush=True)
        if kind == "bombs":
            packed = bomb(1 << 30)
            for number in range(SENDERS):
                port, path = paths[number % len(paths)]
                said = head(path, len(packed), GZIP) + packed
                jobs.append(self.again_and_again(number, port, lambda _, said=said: said))  # type: ignore[misc]
        elif kind == "signed bombs":
            packed = bomb(63 << 20)
            said = head(USAGE, len(packed), GZIP, SIGNED) + packed
            jobs += [self.again_and_again(number, webhooks, lambda _: said) for number in range(SENDERS)]
        elif kind == "gzip members":
            packed = EMPTY_MEMBER * ((2 << 20) // len(EMPTY_MEMBER))
            said = head(USAGE, len(packed), GZIP, SIGNED) + packed
            jobs += [self.again_and_again(number, webhooks, lambda _: said) for number in range(SENDERS)]
        elif kind == "unread responses":
            jobs += [self.deaf(number, self._ports[number % 2]) for number in range(DEAF)]
        elif kind == "large bodies":
            said = head(USAGE, 60 << 20, SIGNED) + b" " * (60 << 20)
            jobs += [self.again_and_again(number, webhooks, lambda _: said) for number in range(SENDERS)]
        elif kind == "guesses":
            for number in range(SENDERS):
                port, path = paths[number % len(paths)]

                def guess(turn: int, path: str = path) -> bytes:
                    return head(path, 2, f"Authorization: Bearer guess-{turn}") + b"{}"

                jobs.append(self.again_and_again(number, port, guess))
        elif kind == "metrics port":
            jobs += [self.silent(number, self._metrics) for number in range(SILENT_ON_METRICS)]
            jobs += [self.again_and_again(number, self._metrics, lambda _: SCRAPE) for number in range(SENDERS)]
        else:
            jobs += [self.silent(number, self._ports[number % 2]) for number in range(SILENT)]
        await asyncio.gather(*jobs)


KINDS = (
    *("bombs", "signed bombs", "gzip members", "large bodies", "guesses", "silence", "unread responses"),
    "metrics port",
)


def main(kind: str, webhooks: str, api: str, metrics: str, seconds: str) -> None:
    """Attack, and print what was sent and answered."""
    unauthenticated = Stranger(int(webhooks), int(api), int(metrics), time.monotonic() + float(seconds))
    asyncio.run(unauthenticated.attack(kind))
    print(f"{kind}: {unauthenticated.budget.sent / 1e6:.1f} MB sent, answers {unauthenticated.answers}")


if __name__ == "__main__":
    main(*sys.argv[1:])
