"""`make fuzz`: coverage-guided fuzzing of everything that reads what comes in, for MINUTES in all.

    python -m tests.fuzz --minutes 10            every target, two at a time, then a table
    python -m tests.fuzz --minutes 1 body csv    these alone
    python -m tests.fuzz --keep                  what was found new, and reaches new code, joins tests/fuzz/corpus

Exit code 1: an input broke a law, took longer than `SLOWEST_S`, or more memory than `MOST_MIB`. It is printed, and kept
beside the corpus with a name that begins with `found-`; `make test` then fails for it until it is fixed.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import fields

from schemas.wire import CallMetadata, CloudEvent, LagoProperties

CORPUS: Final = Path(__file__).parent / "corpus"
#: One input of at most `LONGEST` bytes may take this, many times what the slowest takes: an endless loop is found by it.
SLOWEST_S, MOST_MIB, LONGEST = 10, 2048, 16_384
_AT_ONCE: Final = 2
_WORDS: Final = (
    "NaN",
    "Infinity",
    "1e999999999",
    "\\xef\\xbb\\xbf",
    "\\\\u0000",
    "\\\\ud800",
    "t=1795215900,v1=",
    "v1,",
)
#: What libFuzzer writes once it has merged.
_MERGED: Final = "MERGE-OUTER: successful"
_FOUND: Final = ("crash-", "timeout-", "oom-", "slow-unit-")


@dataclass(frozen=True)
class Ran:
    """The result of one target's run; `found` are inputs that broke it."""

    target: str
    runs: str
    found: tuple[Path, ...]
    output: str


def main(arguments: Sequence[str] | None = None) -> int:
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="make fuzz", description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="default: all")
    parser.add_argument("--minutes", type=float, default=10.0, help="in all, default 10")
    parser.add_argument("--keep", action="store_true", help="keep the inputs that reach new code in the corpus")
    given = parser.parse_args(arguments)
    targets = given.targets or list(TARGETS)
    seconds = max(1, round(given.minutes * 60 * _AT_ONCE / max(_AT_ONCE, len(targets))))
    with tempfile.TemporaryDirectory(prefix="meterbridge-fuzz-") as folder, ThreadPoolExecutor(_AT_ONCE) as pool:
        ran = list(pool.map(lambda target: fuzz(target, seconds, Path(folder), keep=given.keep), targets))
    for one in ran:
        print(f"{one.target:12} {one.runs:>10} inputs in {seconds} s, {len(one.found)} broke a law")
        for path in one.found:
            print(f"  {path.relative_to(CORPUS.parent)}\n{one.output}")
    broken = sum(len(one.found) for one in ran)
    print(f"{'BROKEN' if broken else 'HELD'}: {broken} inputs broke a law")
    return 1 if broken else 0


def fuzz(target: str, seconds: int, folder: Path, *, keep: bool) -> Ran:
    """Fuzz one target for some seconds, starting from its corpus. Failing inputs are copied beside the corpus."""
    corpus, new, out = CORPUS / target, folder / target / "new", folder / target / "out"
    for each in (corpus, new, out):
        each.mkdir(parents=True, exist_ok=True)
    words = [
        *(sys.executable, "-m", "tests.fuzz.guided", target, str(new), str(corpus)),
        *(f"-max_total_time={seconds}", f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MOST_MIB}"),
        *(f"-max_len={LONGEST}", f"-artifact_prefix={out}/", f"-dict={_dictionary(folder)}", "-print_final_stats=1"),
    ]
    ended = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=seconds + 120, check=False)
    runs = next((line.split()[-1] for line in ended.stderr.splitlines() if "number_of_executed_units" in line), "?")
    found = [path for path in sorted(out.iterdir()) if path.name.startswith(_FOUND)]
    kept = [shutil.copy(path, corpus / f"found-{path.name[-12:]}") for path in found]
    # libFuzzer's alarm may still come while Python ends: a real timeout has left its input.
    if ended.returncode not in (0, -signal.SIGALRM) and not found:
        raise RuntimeError(f"{target}: the fuzzer ended with {ended.returncode}: {ended.stderr[-2000:]}")
    if keep:
        _merge(target, corpus, new)
    result = "\n".join(line for line in ended.stderr.splitlines()[-60:] if not line.startswith(("stat::", "#")))
    return Ran(target, runs, tuple(Path(path) for path in kept), result if found else "")


def _dictionary(folder: Path) -> Path:
    """The names of all members that are read, as JSON: a fuzzer does not find words by itself."""
    from tests.fuzz.stored import JSON

    path = folder / "members.dict"
    names = sorted({field.name for of in (*JSON, CallMetadata, CloudEvent, LagoProperties) for field in fields(of)})
    path.write_text("".join(f'"\\"{name}\\":"\n' for name in names) + "".join(f'"{word}"\n' for word in _WORDS))
    return path


def _merge(target: str, corpus: Path, new: Path) -> None:
    """Of the new inputs, those that reach new code are added to the corpus."""
    words = [
        sys.executable,
        "-m",
        "tests.fuzz.guided",
        target,
        "-merge=1",
        f"-max_len={LONGEST}",
        str(corpus),
        str(new),
    ]
    ended = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=600, check=False)
    if _MERGED not in ended.stderr:  # the exit code is 0 where every attempt failed
        raise RuntimeError(f"{target}: what was found new was not kept: {ended.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
