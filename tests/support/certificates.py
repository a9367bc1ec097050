"""The HTTP clients of a test run share the certificates of public authorities.

Each `httpx.AsyncClient` reads all of them, which takes 25 ms of CPU time, and the tests make thousands of clients for loopback.
"""

import os
import ssl
from functools import cache
from typing import Any

import certifi


def share_certificates() -> None:
    """Share contexts: from now on every context for certifi's file is the same object, and so is every context for the
    file of `SSL_CERT_FILE`, as it is now.

    httpx takes the latter where it heeds the environment.
    """
    created = ssl.create_default_context
    files = {certifi.where(), os.environ.get("SSL_CERT_FILE", certifi.where())}

    @cache
    def shared(file: str) -> ssl.SSLContext:
        return created(cafile=file)

    def create_default_context(*args: Any, **options: Any) -> ssl.SSLContext:
        if not args and list(options) == ["cafile"] and options["cafile"] in files:
            return shared(options["cafile"])
        return created(*args, **options)

    ssl.create_default_context = create_default_context
