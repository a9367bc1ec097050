"""Prevents imports that libraries make only because a package is installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_out(*modules: str) -> Iterator[None]:
    """Make imports of these modules fail inside the block, as if they were not installed. It is meant for libraries
    that catch this error and continue without the module.
    """
    known = {name: sys.modules.get(name) for name in modules}
    # An import of a module that is None there raises ModuleNotFoundError (docs.python.org, The import system, 5.3.1).
    sys.modules.update(dict.fromkeys(known))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in known.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
