"""What a process says that cannot listen on a port."""

import errno
import os

from schemas.errors import ConfigurationError


def port_refused(setting: str, port: int, host: str, error: OSError) -> ConfigurationError:
    """Return the error of a process that cannot listen on its port.

    Args:
        setting: the variable or the option that chooses the port.
        error: of the attempt. asyncio repeats address and port in its text, so the text of its number is taken.
    """
    number = error.errno or 0
    cause = os.strerror(number) if number > 0 else error.strerror or str(error)
    advice = "; stop the other program, or choose another port" if number == errno.EADDRINUSE else ""
    return ConfigurationError(setting, f"{setting} {port} on {host} cannot be used: {cause}{advice}")
