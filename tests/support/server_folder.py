"""Where a server of the tests has its data: in memory during a run of pytest, if there is room.

A test needs new topics and a new database, some hundred files. On a disk that takes Kafka three times, and Postgres six
times as much CPU time. What is measured, or stays for longer, is on the disk.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

_MEMORY = Path("/dev/shm")
#: What must be free in memory, bytes: all servers of a run take less than half of it.
_ROOM = 2 << 30


def server_folder(
    name: str, environ: Mapping[str, str] = os.environ, memory: Path = _MEMORY, room: int = _ROOM
) -> Path:
    """Return a new folder for a server of this name. `memory`: a file system in memory, used when `room` bytes are free
    there.
    """
    in_tests = "PYTEST_VERSION" in environ  # pytest sets it, and every process of a test has it
    has_room = in_tests and memory.is_dir() and shutil.disk_usage(memory).free >= room
    return Path(tempfile.mkdtemp(prefix=f"meterbridge-{name}-", dir=memory if has_room else None))
