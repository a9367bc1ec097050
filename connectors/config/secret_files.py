"""Reads settings from files, as container platforms mount secrets: `LAGO_API_KEY_FILE=/run/secrets/lago_api_key`."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError

ENDING: Final = "_FILE"
#: The maximum size of a file: no setting is longer, and a wrong path may name a log or a device.
_MAX_BYTES: Final = 64 << 10


def with_files(environ: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """Return `environ` with the value of each setting that is in a file, and without the variables that name the files.

    The last line break of a file is not a part of the value.

    Args:
        known: the names of all settings.

    Raises:
        ConfigurationError: a file cannot be read, or a setting is in the environment and in a file. The message never holds a
            value.
    """
    values = dict(environ)
    for variable in known:
        path = values.pop(variable + ENDING, "").strip()
        if not path:
            continue
        if values.get(variable):
            raise ConfigurationError(variable, f"{variable} and {variable}{ENDING} are both set: set only one of them")
        values[variable] = _read(variable + ENDING, path)
    return values


def _read(name: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            value = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigurationError(name, f"{name} names a file that cannot be read: {_why(error)}") from error
    if len(value) > _MAX_BYTES:
        raise ConfigurationError(name, f"{name} names a file of more than {_MAX_BYTES >> 10} KiB")
    try:
        return value.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ConfigurationError(name, f"{name} names a file that is not UTF-8") from error


def _why(error: Exception) -> str:
    """Return the system's words without the path: it may be the value itself in the wrong variable."""
    words = error.strerror if isinstance(error, OSError) else ""
    return (words or type(error).__name__).lower()
