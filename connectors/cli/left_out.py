"""Prevents imports that libraries make only because a package is installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_out(*modules: str) -> Iterator[None]:
    """Inside, an import of these modules fails as if they were not installed; afterwards they can be imported as before.

    For libraries that catch this error and go on with less.
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
