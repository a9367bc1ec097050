"""The event loop of our processes: uvloop, with aiokafka adapted to it.

A write to a connection that was just reset raises OSError in asyncio's own loops, and RuntimeError in uvloop (0.23,
`UVHandle._ensure_alive`). aiokafka (0.14.0, `AIOKafkaConnection.send`) handles OSError only. A RuntimeError ends the
task that meets it. If that task refreshes a client's metadata, the client then never returns from a commit or a fetch,
without a message.
"""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

import uvloop
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError

T = TypeVar("T")


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in a new event loop; return its result."""
    for name in ("send", "_send_sasl_token"):
        send = getattr(AIOKafkaConnection, name)
        if not hasattr(send, "__wrapped__"):
            setattr(AIOKafkaConnection, name, _surviving(send))
    return uvloop.run(main)


def _surviving(send: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `send`: uvloop's error becomes aiokafka's own error for a broken connection."""

    @wraps(send)
    def survive(connection: AIOKafkaConnection, *args: Any, **options: Any) -> Any:
        try:
            return send(connection, *args, **options)
        except KafkaError:  # KafkaError is a RuntimeError
            raise
        except RuntimeError as error:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"{connection!r} was closed under a request") from error

    return survive
