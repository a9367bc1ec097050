"""How seldom Python looks for garbage in the processes that carry usage."""

import gc

#: A chunk or a request makes thousands of short-lived objects that reference counting frees: looking for cycles
#: among them as often as Python does by default costs a tenth of the meter's and of the ingress's time.
_THRESHOLDS = (100_000, 50, 50)


def collect_seldom() -> None:
    """Look for cycles seldom, and never among what is there already."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
