"""The event loop of our processes: uvloop, and aiokafka brought to terms with it.

A write to a connection that has just been reset raises OSError in asyncio's own loops, and RuntimeError in uvloop
(0.23, `UVHandle._ensure_alive`). aiokafka (0.14.0, `AIOKafkaConnection.send`) knows the first alone. The other ends
whatever task it meets, and it may be the one that keeps a client's metadata up to date: that client then waits for
ever, in a commit or in a fetch, and says nothing.
"""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

import uvloop
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError

T = TypeVar("T")


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in a loop of its own; what it returns."""
    for name in ("send", "_send_sasl_token"):
        send = getattr(AIOKafkaConnection, name)
        if not hasattr(send, "__wrapped__"):
            setattr(AIOKafkaConnection, name, _surviving(send))
    return uvloop.run(main)


def _surviving(send: Callable[..., Any]) -> Callable[..., Any]:
    """`send`, that says in aiokafka's own words that the connection is gone."""

    @wraps(send)
    def survive(connection: AIOKafkaConnection, *args: Any, **options: Any) -> Any:
        try:
            return send(connection, *args, **options)
        except KafkaError:  # a RuntimeError by descent
            raise
        except RuntimeError as error:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"{connection!r} was closed under a request") from error

    return survive
