"""Prometheus and promtool for tests: the installed ones, else Debian's package, unpacked without installing it.

With `--fetch`, `python -m tests.support.prometheus` only makes sure that they are there.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "prometheus"
_PROGRAMS = ("promtool", "prometheus")
_LIMIT_S = 300


def program(name: str) -> str:
    """Return the path of `promtool` or `prometheus`; Debian's package (19 MB) is fetched the first time that none is
    installed.

    Raises:
        RuntimeError: there is none, and apt cannot fetch one; with the end of its output.
    """
    if (installed := shutil.which(name)) is not None:
        return installed
    folder = CACHE / "debian"
    if not folder.is_dir():
        _fetch(folder)
    return str(folder / "usr" / "bin" / name)


def _fetch(folder: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    if any(shutil.which(tool) is None for tool in ("apt-get", "dpkg")):
        raise RuntimeError("no promtool to test with: put promtool and prometheus on the PATH")
    arriving = Path(tempfile.mkdtemp(dir=CACHE))
    try:
        if _run(arriving, "apt-get", "download", "prometheus"):  # a new machine has no list of packages yet
            _run(arriving, "apt-get", "update")
            if problem := _run(arriving, "apt-get", "download", "prometheus"):
                raise RuntimeError(f"no promtool to test with: install Debian's package prometheus\n{problem}")
        (package,) = arriving.glob("prometheus_*.deb")
        if problem := _run(arriving, "dpkg", "-x", str(package), "unpacked"):
            raise RuntimeError(f"the package prometheus cannot be unpacked:\n{problem}")
        try:
            (arriving / "unpacked").rename(folder)
        except OSError:  # another run was faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(arriving)


def _run(folder: Path, *command: str) -> str:
    """Run a command in a folder: the end of what it printed if it failed, else `""`."""
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )
    return done.stdout[-2000:] or f"exit code {done.returncode}" if done.returncode else ""


if __name__ == "__main__":
    for wanted in _PROGRAMS:
        print(program(wanted)) if "--fetch" not in sys.argv else program(wanted)
