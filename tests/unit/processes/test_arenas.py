"""The threads of a worker share the allocator's arenas."""

import subprocess
import sys

import pytest

#: Eight threads that allocate in C at the same time; then glibc lists its arenas on stdout.
PROGRAM = """
import ctypes, threading
from connectors.processes.arenas import few_arenas
few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
all_there = threading.Barrier(8)
def allocate():
    all_there.wait()
    libc.malloc(100)
    all_there.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's arenas")
def test_many_threads_share_two_arenas() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert 1 <= ran.stdout.count("<heap nr=") <= 2
