"""The ingress compared with the smallest possible one: the same posts, connections, producer and broker."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

import aiohttp

from bench.contest import Measured, environment, interleaved, measured
from bench.ground import Ground
from bench.records import array_body, flat_bodies, signature
from bench.report import Row, rows_of
from schemas.topics import TopicNames

_SECRET = "bench-secret"
_ELEMENTS = 500
_CONNECTIONS = 64
_ARRAY_CONNECTIONS = 2
#: Posts for each thousand calls of the run.
_SINGLES, _ARRAYS = 100, 0.3


def single(ground: Ground, records: int, repeats: int) -> list[Row]:
    """One signed flat call a post, over persistent connections."""
    bodies = flat_bodies()
    signed = [(body, {"X-Webhook-Signature": signature(_SECRET, body)}) for body in bodies]
    return _rows(
        ground, "ingress_single", "us/post", "single", signed, records * _SINGLES // 1000, _CONNECTIONS, repeats
    )


def array(ground: Ground, records: int, repeats: int) -> list[Row]:
    """Arrays of 500 whole StandardLoggingPayloads."""
    body = array_body(_ELEMENTS)
    signed = [(body, {"X-Webhook-Signature": signature(_SECRET, body)})]
    posts = max(4, int(records * _ARRAYS) // 1000)
    return _rows(ground, "ingress_array", "us/array", "array", signed, posts, _ARRAY_CONNECTIONS, repeats)


Signed = Sequence[tuple[bytes, dict[str, str]]]


def _rows(
    ground: Ground, name: str, unit: str, what: str, bodies: Signed, posts: int, connections: int, repeats: int
) -> list[Row]:
    prefix = ground.corner()
    topic = TopicNames.with_prefix(prefix).raw
    warm_up = max(2, posts // 10)
    ours = ["bench.ours.ingress_job", ground.bootstrap, prefix, _SECRET]
    bare = ["bench.peers.bare_ingress_job", what, ground.bootstrap, topic]

    def served(command: list[str]) -> Callable[[], Measured]:
        return lambda: _served([*command, str(warm_up), str(posts)], bodies, warm_up + posts, connections)

    return rows_of(name, unit, interleaved({"ours": served(ours), "bare": served(bare)}, repeats))


def _served(command: list[str], bodies: Signed, posts: int, connections: int) -> Measured:
    """Start a server, post to it, and read its measurement."""
    with tempfile.TemporaryFile("w+") as errors:
        server = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().removeprefix("port "))
            asyncio.run(_post(f"http://127.0.0.1:{port}/webhook/litellm/usage", bodies, posts, connections))
            return measured(server.stdout.readline())
        except (ValueError, AssertionError, aiohttp.ClientError) as error:
            errors.seek(0)
            raise RuntimeError(f"{command[0]} measured nothing:\n{errors.read()[-3000:]}") from error
        finally:
            server.kill()
            server.wait()


async def _post(url: str, bodies: Signed, posts: int, connections: int) -> None:
    numbers = iter(range(posts))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:

        async def one_after_the_other() -> None:
            for number in numbers:
                body, headers = bodies[number % len(bodies)]
                async with session.post(url, data=body, headers=headers) as answer:
                    if answer.status != 202:
                        raise ValueError(f"{answer.status} {await answer.text()}")

        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(one_after_the_other())
