"""What the event loop hands to the thread that fetches: values that only one of the two threads changes."""

from typing import Any

from faust.types.tuples import TP

from streams.runtime.faust_transport import App

_FIRST, _SECOND = TP("raw", 0), TP("raw", 1)


class _Thread:
    """Keeps the partitions that it was asked for, as a fetch does until the broker answers."""

    async def getmany(self, active_partitions: set[TP], timeout: float) -> dict[TP, Any]:
        self.asked = active_partitions
        return {}


async def test_a_pause_during_a_fetch_does_not_change_the_set_of_the_fetch() -> None:
    # A set that changes while another thread iterates over it ended the worker: "Set changed size during iteration".
    app = App("fetching", broker="kafka://localhost:1", store="memory://")
    consumer: Any = app._new_consumer()
    consumer._thread = thread = _Thread()
    active = consumer._set_active_tps({_FIRST, _SECOND})
    await consumer._getmany(active, 0.1)
    consumer.pause_partitions([_SECOND])
    assert active == {_FIRST}
    assert thread.asked == {_FIRST, _SECOND}
