"""Makes Python's garbage collector run rarely in the processes that carry usage."""

import gc

#: Thresholds of the collector. A batch or a request creates thousands of short-lived objects, which reference counting
#: frees. With Python's default, the search for cycles among them takes a tenth of the time of the meter and of the
#: ingress.
_THRESHOLDS = (100_000, 50, 50)


def collect_seldom() -> None:
    """Search for cycles rarely, and never among the objects that exist now."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
