"""Makes the transaction id of a request. A repeat of the request gets the same id, so the id is never random.

A client that repeats a request sends the same `Idempotency-Key` or `X-Request-ID` again. A client that sends neither
header gets an `X-Request-ID` with its response, from the service or from this module, and may repeat the request with
this id.
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

    Org and user are part of the id, because two orgs or users may choose the same value. Every release of the SDK makes
    the same id, because two releases of a service may receive two attempts of one request.

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
    """Return the first of these headers that is not empty.

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
    """Makes ids for requests without an id, from machine, process, time and a number, so that all ids are different.

    Args:
        now_ns: the time now, nanoseconds since 1970 UTC.
    """

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._host = socket.gethostname()
        self._numbers = count()

    def __call__(self) -> str:
        """Return a new id, 32 hexadecimal digits."""
        # The process id is read each time, because a server may fork after this object was made.
        text = f"{self._host} {os.getpid()} {id(self)} {self._now_ns()} {next(self._numbers)}"
        return sha256(text.encode()).hexdigest()[:32]
