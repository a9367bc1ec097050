"""Bounds the arenas of the C library's allocator, in processes whose threads rarely allocate at the same time."""

import ctypes
from typing import Final

#: `M_ARENA_MAX` of glibc's mallopt(3).
_ARENA_MAX: Final = -8
#: Number of arenas: one for Python's threads, which allocate under Python's lock, and one for threads of C libraries.
_ARENAS: Final = 2


def few_arenas() -> None:
    """Let all threads of this process, and of processes forked from it, allocate from two arenas.

    By default glibc makes one for each of the first threads, eight for each core, and none of them returns its memory.
    Without glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _ARENAS)
