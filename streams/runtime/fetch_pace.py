"""How often a Faust consumer asks its brokers: seldom while nothing comes.

A broker answers a fetch as soon as there is a record, whatever the consumer allows it to wait. So a long wait delays no
record of a partition that is fetched. It delays what is sent after the fetch on the same connection: the first fetch of a
partition that is resumed or sought. So the waits are long only while no partition is paused, and none was sought lately.
"""

from collections.abc import Callable
from time import monotonic as clock
from typing import Any, Final, NamedTuple


class Waits(NamedTuple):
    """How long a consumer waits for records, seconds; how long a broker may hold a fetch without any, milliseconds; and
    how often aiokafka looks for partitions to fetch although nothing has told it of any, seconds.
    """

    records_s: float
    held_ms: int
    look_s: float


#: While records come. By itself Faust would let a broker hold a fetch for 1500 ms. The last number is aiokafka's default.
BUSY: Final = Waits(0.1, 100, 0.2)
QUIET: Final = Waits(0.5, 500, 2.0)
#: Time without records, seeks and partitions that are not fetched, after which a consumer is quiet, seconds.
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
        """Records came, or a partition was sought or is not fetched."""
        self._busy_at = self._monotonic()

    def waits(self) -> Waits:
        """The waits from now on."""
        return QUIET if self._monotonic() - self._busy_at >= QUIET_AFTER_S else BUSY

    def apply(self, consumer: Any) -> None:
        """Set the waits of an aiokafka consumer from its next fetch on."""
        waits, fetcher = self.waits(), consumer._fetcher  # noqa: SLF001  # it reads both before each fetch
        fetcher._fetch_max_wait_ms, fetcher._fetcher_timeout = waits.held_ms, waits.look_s  # noqa: SLF001
