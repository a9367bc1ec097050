"""The compared versions of LiteLLM, and an environment for each, outside the repository."""

import os
import subprocess
import sys
from pathlib import Path

#: The oldest first. Changes between them: the call id (1.85), retries of the callback (1.96), a lock around the flush (1.108).
VERSIONS = ("1.81.16", "1.85.7", "1.96.2", "1.106.12", "1.110.2")
NEWEST = VERSIONS[-1]
#: The `proxy` extra of later versions names a package that the registry does not have: the libraries of this one serve them.
_LIBRARIES = "1.108.7"
#: A version that does not start with the newest of its libraries.
_PINS = {"1.96.2": ("fastapi==0.136.3",)}
_CACHE = Path(os.environ.get("LITELLM_MATRIX_CACHE") or Path.home() / ".cache" / "meterbridge-litellm")
_UV = "0.9.0"


def python_of(version: str) -> Path | None:
    """The Python of an environment with this LiteLLM; None = it is not installed."""
    folder = _CACHE / version
    return folder / "bin" / "python" if (folder / ".installed").exists() else None


def install(version: str) -> Path:
    """Create the environment of a version, once: 100 to 600 MB, a minute or two.

    Returns:
        Its Python.

    Raises:
        CalledProcessError: the package registry does not have it, or does not answer.
    """
    if (python := python_of(version)) is not None:
        return python
    uv, folder = str(_uv()), _CACHE / version
    subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
    pip = [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(folder / "bin" / "python")]
    later = tuple(map(int, version.split("."))) > tuple(map(int, _LIBRARIES.split(".")))
    subprocess.run(
        [*pip, f"litellm[proxy]=={_LIBRARIES if later else version}", "semver==3.0.4", *_PINS.get(version, ())],
        check=True,
    )
    if later:
        subprocess.run([*pip, "--no-deps", f"litellm=={version}"], check=True)
    (folder / ".installed").touch()
    return folder / "bin" / "python"


def _uv() -> Path:
    folder = _CACHE / "uv"
    uv = folder / "bin" / "uv"
    if not uv.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", f"uv>={_UV}"], check=True)
    return uv
