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


def forget_frozen() -> None:
    """Free what a role that ended in this process has left: `collect_seldom` froze a part of it. It takes about a tenth of a second."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
