"""A library that tries to import a missing module at each request searches the whole path each time. httpx's core does so
with `sniffio`: without it a request takes a third more CPU time.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from connectors.lago.client import LagoClient, lago_http
from tests.support.sandbox import KEY, lago_sandbox


class _Searches:
    """The modules that were searched for; it finds none."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        self.names.append(name)
        return None


async def test_a_later_request_to_lago_searches_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    async with lago_sandbox() as lago, lago_http(5, 4) as http:
        client = LagoClient(http, lago.url, KEY)
        assert await client.healthy()
        await client.customer("nobody")
        searches = _Searches()
        monkeypatch.setattr(sys, "meta_path", [searches, *sys.meta_path])
        for _ in range(3):
            await client.customer("nobody")
    assert searches.names == []
