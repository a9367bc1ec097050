"""Posts the durable records of the ring to the ingress, batch by batch, each lane separately.

A lane whose batch cannot be posted now waits, each time longer, while the other lanes continue.
"""

import contextlib
import errno
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meterbridge_litellm.aside import Aside
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.lane import Lane, RingPosition, ended_lanes
from meterbridge_litellm.posting import Posted
from meterbridge_litellm.settings import PluginSettings

#: Posts a batch; the second argument is the number of earlier failed posts.
Post = Callable[[Sequence[bytes], int], Posted]
_GROUP: Final = 500
_LOOK_S: Final = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 30.0


@dataclass(slots=True)
class _Pace:
    """The number of failed posts of a lane's next batch, and the time of its next attempt."""

    failures: int = 0
    pause_s: float = 0.0
    not_before: float = 0.0

    def failed(self, asked_s: float = 0.0) -> None:
        self.failures += 1
        self.pause_s = min(max(self.pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        self.not_before = time.monotonic() + max(asked_s, self.pause_s * random.uniform(0.5, 1.0))


class RingDelivery:
    """Posts the lanes of one folder: the process's own, and those of processes that have ended. For one thread.

    Fields:
        freed: bytes of this process's lane that were posted and deleted.
        others: bytes of all other lanes in the folder.
    """

    def __init__(self, settings: PluginSettings, counts: Counts, own: Lane, post: Post) -> None:
        self._counts, self._own, self._post = counts, own, post
        self._folder = Path(settings.ring_path)
        self._aside = Aside(self._folder, own.name, settings.aside_max_bytes)
        self._left: dict[str, Lane] = {}
        self._paces: dict[str, _Pace] = {}
        self._looked_at = 0.0
        self.freed = self.others = 0

    def post_once(self, durable: RingPosition) -> bool:
        """Post one batch of each lane; return whether more can be posted now.

        Args:
            durable: the durable position of this process's lane.
        """
        try:
            self._look_for_left_lanes()
        except OSError as error:
            self._counts.warn("ring_unreadable", error=errno.errorcode.get(error.errno or 0))
        more = False
        for lane in [self._own, *self._left.values()]:
            pace = self._paces.setdefault(lane.name, _Pace())
            if time.monotonic() < pace.not_before:
                continue
            try:
                more = self._post_of(lane, durable if lane is self._own else None, pace) or more
            except OSError as error:
                self._counts.warn("ring_unreadable", error=errno.errorcode.get(error.errno or 0))
                pace.failed()
            except Exception as error:  # noqa: BLE001  # an error of ours: the other lanes must be posted all the same
                self._counts.warn("posting_broken", error=type(error).__name__)
                pace.failed()
        return more

    def hurry(self) -> None:
        """Let no lane wait for its next attempt."""
        self._paces.clear()

    def forget(self) -> None:
        """Close the files of the lanes of ended processes."""
        for lane in self._left.values():
            lane.close()

    def _post_of(self, lane: Lane, end: RingPosition | None, pace: _Pace) -> bool:
        records, behind, damaged = lane.read(_GROUP, end)
        if records:
            posted = self._post(records, pace.failures)
            if posted.problem:
                self._counts.warn("posting_fails", why=posted.problem, waiting=len(records))
                pace.failed(posted.asked_s)
                return False
            if posted.refused and not self._set_aside(posted.refused):
                pace.failed()
                return False
        self._paces.pop(lane.name, None)
        if damaged:
            self._counts.add("damaged_bytes", damaged)
            self._counts.warn("ring_damaged", bytes=damaged)
        if behind != lane.done:
            freed = lane.posted(behind)
            self.freed += freed if lane is self._own else 0
            return True
        if lane is not self._own:
            del self._left[lane.name]
            lane.remove()
        return False

    def _set_aside(self, refused: Sequence[tuple[bytes, int]]) -> bool:
        """Store the records that the ingress refuses; False = the disk cannot store them now."""
        try:
            kept = self._aside.keep([record for record, _ in refused])
        except OSError as error:
            self._counts.warn("setting_aside_fails", error=errno.errorcode.get(error.errno or 0))
            return False
        if kept:
            self._counts.add("set_aside", kept)
            statuses = Counter(f"http_{status}" for _, status in refused)
            self._counts.warn("usage_set_aside", why=dict(statuses), bytes=max(len(record) for record, _ in refused))
        if kept < len(refused):
            self._counts.add("shed", len(refused) - kept)
            self._counts.warn("usage_shed", why="aside_full")
        return True

    def _look_for_left_lanes(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        for lane in ended_lanes(self._folder, frozenset({self._own.name, *self._left})):
            self._left[lane.name] = lane
        total = 0
        for path in self._folder.glob("*.seg"):
            if not path.name.startswith(self._own.name):
                with contextlib.suppress(FileNotFoundError):  # another process has just posted this lane
                    total += path.stat().st_size
        self.others = total
