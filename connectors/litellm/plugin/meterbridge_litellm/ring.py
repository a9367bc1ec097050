"""Stores records of calls on disk, from the response of the proxy until Meterbridge has them.

One thread makes them durable, with one fsync for all new records, and another thread posts the durable records. All
processes of a proxy share the folder, and each has its own lane. Other or later processes post the lane of a killed
process.
"""

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from meterbridge_litellm.aside import sync_folder
from meterbridge_litellm.counts import Counts
from meterbridge_litellm.delivery import Post, RingDelivery
from meterbridge_litellm.lane import RingPosition, frame, new_lane
from meterbridge_litellm.settings import FSYNC, RING_PATH, SEGMENT_BYTES, PluginSettings

#: A record, and the future with the result whether it was stored.
Entry = tuple[bytes, "asyncio.Future[bool] | None"]
_GROUP: Final = 500
#: The maximum number of records that wait for the writer in memory.
_QUEUE_BYTES: Final = 16 << 20
_LOOK_S: Final = 1.0
_MOMENT_S: Final = 0.02


class Ring:
    """The ring of one process.

    With `answer_after` "fsync" only threads touch the disk. Otherwise `append` itself writes into the kernel's cache, which takes
    some microseconds and survives `kill -9`; a thread makes it durable.

    Args:
        post: posts records; see `meterbridge_litellm.posting.Poster.post`.

    Raises:
        ValueError: the folder cannot be made or written. The message names the variable, not its value.
    """

    def __init__(self, settings: PluginSettings, counts: Counts, post: Post) -> None:
        self._settings, self._counts = settings, counts
        self._folder = Path(settings.ring_path)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lane = new_lane(self._folder)
        except OSError as error:
            why = (error.strerror or type(error).__name__).lower()
            raise ValueError(f"{RING_PATH} must be a folder that this process can make and write: {why}") from None
        self._delivery = RingDelivery(settings, counts, self._lane, post)
        self._lock = threading.Lock()  # protects the following attributes, up to the events
        self._queue: deque[Entry] = deque()
        self._queued = self._written = 0
        self._file, self._number, self._size = -1, 0, SEGMENT_BYTES
        self._full_files: list[int] = []  # of segments that are not completely durable yet
        self._is_named = True  # whether the names of all segments are durable
        self._due, self._wake, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._durable, self._freed, self._others = RingPosition(0, 0), 0, 0
        self._deadline = 0.0
        self._writer = threading.Thread(target=self._write_forever, name="meterbridge-writer", daemon=True)
        self._poster = threading.Thread(target=self._post_forever, name="meterbridge-poster", daemon=True)
        self._writer.start()
        self._poster.start()

    def append(self, record: bytes, kept: "asyncio.Future[bool] | None" = None) -> None:
        """Add a record. `kept` becomes True when the record is as safe as `answer_after` requires, and False if the
        disk or the ring is full.
        """
        size = len(frame(record))
        with self._lock:
            used = self._written - self._freed + self._others + self._queued
            if used + size > self._settings.ring_max_bytes or self._queued > _QUEUE_BYTES:
                self._shed((record, kept), "ring_full")
                return
            if self._settings.answer_after == FSYNC and not self._closing.is_set():
                self._queue.append((record, kept))
                self._queued += size
            else:
                self._write([(record, kept)])
                _settle([kept], kept=True)
        self._due.set()

    def close(self) -> None:
        """Write all records, and post for `stop_seconds`. The next process posts the rest."""
        self._deadline = time.monotonic() + self._settings.stop_seconds
        self._closing.set()
        self._due.set()
        self._writer.join(self._settings.stop_seconds)
        self._wake.set()
        self._poster.join(self._settings.stop_seconds + self._settings.post_timeout)

    def forget(self) -> None:
        """Close the files in a forked process, so that only the parent holds their locks."""
        self._lane.close()
        self._delivery.forget()

    def _write_forever(self) -> None:
        while not self._closing.is_set() or self._queue:
            self._due.wait()
            self._due.clear()
            self._make_durable()
        self._make_durable()  # the bytes that were written since

    def _make_durable(self) -> None:
        """Write the waiting records, and fsync them together with the records that were written since the last fsync."""
        with self._lock:
            group = [self._queue.popleft() for _ in range(min(_GROUP, len(self._queue)))]
            if self._queue:
                self._due.set()
            self._queued -= sum(len(frame(record)) for record, _ in group)
            written = self._write(group)
            if self._file < 0:
                return
            full, self._full_files, current = self._full_files, [], self._file
            end, is_named, self._is_named = RingPosition(self._number, self._size), self._is_named, True
        # The lock is free here: `append`, in the event loop of the proxy, must not wait for the disk. `current` may become a full
        # one meanwhile; only this thread closes it, the next time.
        if not is_named and not self._synced(partial(sync_folder, self._folder)):
            with self._lock:
                self._is_named = False
        for file in (*full, current):
            self._synced(partial(os.fdatasync, file))
        for file in full:
            os.close(file)
        self._durable = end
        _settle([future for _, future in written], kept=True)
        self._wake.set()

    def _synced(self, sync: Callable[[], None]) -> bool:
        """Return whether `sync` has made something durable. Records are posted in any case: Meterbridge's copy is the safest."""
        try:
            sync()
        except OSError as error:
            self._counts.warn("fsync_failed", error=errno.errorcode.get(error.errno or 0))
            return False
        return True

    def _write(self, group: list[Entry]) -> list[Entry]:
        """Append records together, or one by one if that fails; return the written records. The others are shed."""
        if not group:
            return []
        data = b"".join(frame(record) for record, _ in group)
        try:
            self._append_to_segment(data)
        except OSError as error:
            if len(group) > 1:
                return [entry for each in group for entry in self._write([each])]
            self._shed(group[0], errno.errorcode.get(error.errno or 0, "disk"))
            return []
        self._written += len(data)
        self._counts.add("kept", len(group))
        return group

    def _append_to_segment(self, data: bytes) -> None:
        """Append all bytes or nothing. Raises: OSError."""
        if self._size + len(data) > SEGMENT_BYTES:
            number = self._number + 1
            file = os.open(self._lane.segment(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._is_named = False
            if self._file >= 0:
                self._full_files.append(self._file)
            self._file, self._number, self._size = file, number, os.fstat(file).st_size
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += written

    def _shed(self, entry: Entry, why: str) -> None:
        self._counts.add("shed")
        self._counts.warn("usage_shed", why=why)
        _settle([entry[1]], kept=False)

    def _post_forever(self) -> None:
        hurried = False
        while True:
            if self._closing.is_set() and not hurried:
                hurried = True
                self._delivery.hurry()
            all_durable = (
                not self._writer.is_alive()
            )  # the position is read before, so that later writes do not count as durable
            more = self._delivery.post_once(self._durable)
            self._freed, self._others = self._delivery.freed, self._delivery.others
            if self._closing.is_set():
                if (not more and all_durable) or time.monotonic() > self._deadline:
                    return
                if not more:
                    time.sleep(_MOMENT_S)
            elif not more:
                self._wake.wait(_LOOK_S)
                self._closing.wait(self._settings.flush_seconds)
            self._wake.clear()


def _settle(futures: "Sequence[asyncio.Future[bool] | None]", *, kept: bool) -> None:
    """Resolve the futures in their loop, with one wake-up for all of them."""
    waiting = [future for future in futures if future is not None]
    if not waiting:
        return
    loop = waiting[0].get_loop()
    if asyncio._get_running_loop() is loop:  # noqa: SLF001  # in the loop itself no wake-up is needed
        _resolve(waiting, kept)
        return
    with contextlib.suppress(RuntimeError):  # the loop has ended, so no task waits
        loop.call_soon_threadsafe(_resolve, waiting, kept)


def _resolve(futures: "Sequence[asyncio.Future[bool]]", kept: bool) -> None:
    for future in futures:
        if not future.done():
            future.set_result(kept)
