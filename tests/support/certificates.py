"""The HTTP clients of a test run share the certificates of public authorities.

Each `httpx.AsyncClient` reads all of them, which takes 25 ms of CPU time, and the tests make thousands of clients for loopback.
"""

import ssl
from functools import cache
from typing import Any

import certifi


def share_certificates() -> None:
    """From now on every context for certifi's file, and for nothing else, is the same one."""
    made = ssl.create_default_context

    @cache
    def shared() -> ssl.SSLContext:
        return made(cafile=certifi.where())

    def create_default_context(*args: Any, **options: Any) -> ssl.SSLContext:
        if not args and options == {"cafile": certifi.where()}:
            return shared()
        return made(*args, **options)

    ssl.create_default_context = create_default_context
