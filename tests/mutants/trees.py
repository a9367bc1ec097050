"""Copies of the checkout in which mutants are tried, and the results of the tests."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import ClassVar

from tests.mutants.nearness import rounds
from tests.mutants.rules import ROOT, Mutant

#: Seconds of processor time of a run of tests, and of each file of it: a mutant that never ends is noticed, a busy machine
#: is no mutant.
_CPU_S, _CPU_OF_A_FILE_S = 60, 5
_MOST_WALL_S = 3_600.0
#: pytest's exit codes: all passed and nothing collected; a test failed and a test file could not be read.
_PASSED, _FAILED = (0, 5), (1, 2)
#: Plugins that no unit test uses: together they take longer to start than most tests run.
_UNUSED = ("cacheprovider", "xdist", "xdist.looponfail", "schemathesis", "typeguard", "anyio")
#: A mistake that no module survives to be imported with.
_NO_IMPORT = "while loading conftest"
_NO_END = "more than {} s of processor time"
_REPORTED = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py(?:::\w+)*)", re.MULTILINE)


class Tree:
    """A copy of the checkout, without what git ignores."""

    #: Tests that were seen passing without any mutant, by all trees.
    _sound: ClassVar[set[str]] = set()
    _lock: ClassVar[Lock] = Lock()

    def __init__(self, place: Path) -> None:
        self._place = place
        self._writes = 0
        words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, place / name)

    def killer(self, mutant: Mutant, seed: str) -> str:
        """The test that notices the mutant; `""` if none does.

        Raises:
            RuntimeError: that test fails without the mutant, too, or the tests could not be run.
        """
        path = self._place / mutant.file
        sound = path.read_text(encoding="utf-8")
        by = ""
        self._write(path, mutant.text)
        try:
            for tests in rounds(mutant.file):
                if by := self._failing(tests, seed):
                    break
        finally:
            self._write(path, sound)
        if by and "::" in by:
            self._assure(by, seed)
        return by

    def _write(self, path: Path, text: str) -> None:
        """Write with an own timestamp: Python decides by time and length whether its compiled file is still right."""
        self._writes += 1
        path.write_text(text, encoding="utf-8")
        os.utime(path, (self._writes, self._writes))

    def _assure(self, test: str, seed: str) -> None:
        """Verify once that a test passes without a mutant."""
        with self._lock:
            if test not in self._sound and (by := self._failing([test], seed)):
                raise RuntimeError(f"fails without any mutant: {by}")
            self._sound.add(test)

    def _failing(self, tests: Sequence[str], seed: str) -> str:
        """The first test that fails, `""` if none does; run in a separate process."""
        most_cpu_s = _CPU_S + _CPU_OF_A_FILE_S * len(tests)
        without = [word for plugin in _UNUSED for word in ("-p", f"no:{plugin}")]
        pytest = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-rfE", *without, f"--hypothesis-seed={seed}"]
        words = ["sh", "-c", f'ulimit -t {most_cpu_s}; exec "$@"', "sh", *pytest, *tests]
        environ = {**os.environ, "PYTHONPATH": str(self._place)}
        with tempfile.TemporaryFile("w+") as result:
            process = subprocess.Popen(
                words,
                cwd=self._place,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = _waited_for(process)
            result.seek(0)
            text = result.read()
        if code in _PASSED:
            return ""
        if code < 0:
            return _NO_END.format(most_cpu_s)
        if _NO_IMPORT in text:
            return "tests/conftest.py"
        if code not in _FAILED:
            raise RuntimeError(f"pytest ended with {code}:\n{text[-2000:]}")
        found = _REPORTED.search(text)
        return found[1] if found else tests[0]


def _waited_for(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(_MOST_WALL_S)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
