"""Sets how often a Faust consumer sends fetches: rarely while no records arrive.

A broker answers a fetch as soon as there is a record, even if the consumer allows a long wait. So a long wait delays no
record of a fetched partition. It delays the next request on the same connection: the first fetch of a partition that
was resumed or sought. So the waits are long only while no partition is paused and none was sought recently.
"""

from collections.abc import Callable
from time import monotonic as clock
from typing import Any, Final, NamedTuple


class Waits(NamedTuple):
    """How long a consumer waits for records, seconds; how long a broker may hold a fetch without records, milliseconds;
    and how often aiokafka looks for partitions to fetch without a notification, seconds.
    """

    records_s: float
    held_ms: int
    look_s: float


#: The waits while records arrive. Faust's default would let a broker hold a fetch for 1500 ms. The last number is
#: aiokafka's default.
BUSY: Final = Waits(0.1, 100, 0.2)
QUIET: Final = Waits(0.5, 500, 2.0)
#: A consumer becomes quiet after this time without records, seeks and unfetched partitions, seconds.
QUIET_AFTER_S: Final = 2.0


class FetchPace:
    """The pace of one consumer. Its thread changes it; other threads may read it.

    Args:
        monotonic: a clock, seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = clock) -> None:
        self._monotonic = monotonic
        self._busy_at = monotonic()

    def busy(self) -> None:
        """Register that records arrived, or that a partition was sought or is not fetched."""
        self._busy_at = self._monotonic()

    def waits(self) -> Waits:
        """Return the waits that apply now."""
        return QUIET if self._monotonic() - self._busy_at >= QUIET_AFTER_S else BUSY

    def apply(self, consumer: Any) -> None:
        """Set the waits of an aiokafka consumer from its next fetch on."""
        waits, fetcher = self.waits(), consumer._fetcher  # noqa: SLF001  # it reads both before each fetch
        fetcher._fetch_max_wait_ms, fetcher._fetcher_timeout = waits.held_ms, waits.look_s  # noqa: SLF001
