"""A clock that processes share and that can be moved forward: a small library (ahead.c), loaded into each of them."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_SOURCE = Path(__file__).parent / "ahead.c"
_DAY_S = 86_400


def compiler() -> str | None:
    """The C compiler; None if there is none, or without Linux, which loads the library."""
    return shutil.which("cc") if sys.platform == "linux" else None


class Clock:
    """The machine's clock until it is moved forward; `environ` contains what a process needs to follow it."""

    def __init__(self, compiled_by: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="meterbridge-clock-"))
        self._folder.chmod(0o755)  # Postgres runs as another account
        self._file = self._folder / "ahead"
        library = self._folder / "ahead.so"
        command = [compiled_by, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        self.forward(0)
        self.environ: Mapping[str, str] = {"LD_PRELOAD": str(library), "AHEAD_FILE": str(self._file)}

    def forward(self, days: int) -> None:
        """Let the clocks of processes started from now on be this number of days ahead of the machine's."""
        self._file.write_text(f"{days * _DAY_S}\n")
        self._file.chmod(0o644)

    def remove(self) -> None:
        """Remove its files; the processes have ended."""
        shutil.rmtree(self._folder, ignore_errors=True)
