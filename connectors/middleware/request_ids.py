"""The transaction id of a request: the same for a repeat that says it is one, and never drawn by lot.

A client that repeats a request sends the same `Idempotency-Key` or `X-Request-ID` again. One that sends neither gets an
`X-Request-ID` with its answer, the service's own or one made here, and may repeat the request with that.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import count
from typing import Final

import msgspec

#: The first that is there counts.
ID_HEADERS: Final = ("Idempotency-Key", "X-Request-ID")
RETURNED: Final = "X-Request-ID"


def transaction_id(org_id: str, user_id: str | None, method: str, path: str, header: str, value: str) -> str:
    """One id for all of these, `req_` and 64 hexadecimal digits.

    Org and user are part of it: two of them may have chosen the same value.
    """
    parts = msgspec.json.encode([org_id, user_id, method.upper(), path, header.lower(), value])
    return "req_" + sha256(parts).hexdigest()


def given_id(headers: Mapping[str, str], names: Sequence[str]) -> tuple[str, str] | None:
    """The first of the headers that says anything: (name, value). Names are asked in lower case."""
    for name in names:
        if value := headers.get(name.lower(), "").strip():
            return name, value
    return None


class MadeIds:
    """Ids of requests that carry none: of the machine, the process, the moment and a number. No two are the same.

    Args:
        now_ns: nanoseconds since 1970 UTC.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._host = socket.gethostname()
        self._numbers = count()

    def __call__(self) -> str:
        """A new one, 32 hexadecimal digits."""
        # The process is asked each time: a server may fork after this was made.
        told = f"{self._host} {os.getpid()} {id(self)} {self._now_ns()} {next(self._numbers)}"
        return sha256(told.encode()).hexdigest()[:32]
