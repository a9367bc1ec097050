"""The transaction id of a request: the same when the client repeats the request, and never random.

A client that repeats a request sends the same `Idempotency-Key` or `X-Request-ID` again. A client that sends neither
gets an `X-Request-ID` with its response, the service's own or one made here, and may repeat the request with that.
"""

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import count
from typing import Final

#: Request headers that hold a request's id; the first one that is not empty counts.
ID_HEADERS: Final = ("Idempotency-Key", "X-Request-ID")
#: Response header with the request's id.
REQUEST_ID: Final = "X-Request-ID"


def transaction_id(org_id: str, user_id: str | None, method: str, path: str, header: str, value: str) -> str:
    """Make one id from all of these: `req_` and 64 hexadecimal digits.

    Org and user are part of it, because two of them may choose the same value. The id is the same in every release of
    the SDK: two releases of a service may get the two attempts of one request.

    Args:
        method: the HTTP method, in any case.
        path: of the request, without the query.
        header, value: the header that holds the request's id, its name in any case, and the id.
    """
    parts = json.dumps(
        [org_id, user_id, method.upper(), path, header.lower(), value], ensure_ascii=False, separators=(",", ":")
    )
    return "req_" + sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()


def given_id(headers: Mapping[str, str], names: Sequence[str]) -> tuple[str, str] | None:
    """Return the first of the headers that is not empty.

    Args:
        headers: of the request; names in lower case are found.
        names: of the headers, in order.

    Returns:
        (name, value); None = all are empty or missing.
    """
    for name in names:
        if value := headers.get(name.lower(), "").strip():
            return name, value
    return None


class RequestIds:
    """New ids for requests that carry none: made of machine, process, moment and a number, so that no two are the same.

    Args:
        now_ns: the time now, nanoseconds since 1970 UTC.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._host = socket.gethostname()
        self._numbers = count()

    def __call__(self) -> str:
        """Return a new id, 32 hexadecimal digits."""
        # The process id is read each time: a server may fork after this object was made.
        text = f"{self._host} {os.getpid()} {id(self)} {self._now_ns()} {next(self._numbers)}"
        return sha256(text.encode()).hexdigest()[:32]
