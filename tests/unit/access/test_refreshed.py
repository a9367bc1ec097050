"""A cached value that is read again when it is old: concurrent callers share one read, and the old value stays while a
read fails.
"""

import asyncio

import pytest

from connectors.access.refreshed import Refreshed


class Source:
    """Counts how often it is read; raises `error` if it is set."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reads = 0
        self.error: Exception | None = None
        self.failed: list[Exception] = []
        self.value = Refreshed(0, self.read, self.failed.append, lambda: self.now, again_s=1.0, limit_s=0.05)

    async def read(self) -> int:
        self.reads += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.reads


async def test_concurrent_callers_share_one_read() -> None:
    source = Source()
    await asyncio.gather(*(source.value.if_older(10) for _ in range(5)))
    assert (source.reads, source.value.value, source.value.age_s()) == (1, 1, 0)


async def test_a_fresh_value_is_not_read_again_unless_it_was_invalidated() -> None:
    source = Source()
    await source.value.if_older(10)
    source.now += 9
    await source.value.if_older(10)
    assert source.reads == 1
    source.value.changed()
    await source.value.if_older(10)
    assert source.value.value == 2


async def test_a_failed_read_keeps_the_old_value_and_is_not_repeated_at_once() -> None:
    source = Source()
    await source.value.if_older(10)
    source.now += 11
    source.error = OSError("away")
    await source.value.if_older(10)
    await source.value.if_older(10)
    assert (source.reads, source.value.value, source.value.age_s()) == (2, 1, 11)
    assert source.failed == [source.error]
    source.now += 2
    source.error = None
    await source.value.if_older(10)
    assert (source.value.value, source.value.age_s()) == (3, 0)


async def test_a_read_that_takes_too_long_counts_as_failed() -> None:
    source = Source()
    source.read = lambda: asyncio.sleep(1, 7)  # type: ignore[method-assign]
    value = Refreshed(0, source.read, source.failed.append, lambda: source.now, again_s=1.0, limit_s=0.01)
    await value.if_older(10)
    assert value.value == 0
    assert isinstance(source.failed[0], TimeoutError)


async def test_an_unexpected_error_of_the_source_is_raised() -> None:
    def failed(error: Exception) -> None:
        raise error

    async def read() -> int:
        raise KeyError

    with pytest.raises(KeyError):
        await Refreshed(0, read, failed, lambda: 1.0, again_s=1.0, limit_s=1.0).if_older(10)
