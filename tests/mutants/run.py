"""`make mutants`: which small changes to the rules does no unit test notice?

Each mutant is tried in a copy of the tree: first with the tests that import its module, then with all unit tests. What
survives and is not in `accepted.toml` makes the exit code 1.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TOOL = HERE / ".venv" / "bin" / "python"
#: What decides about money, who pays, and who may come in.
RULES = (
    *(
        f"streams/core/{name}.py"
        for name in (
            *("decisions", "fold", "seal", "mapping", "remap", "seen", "identity", "answers", "normalise"),
            "customer_key",
        )
    ),
    "schemas/money.py",
    "connectors/http/ingress/signatures.py",
    "connectors/http/ingress/auth.py",
    # `entrance` only puts the others together; it is tried by the tests on real neighbours.
    *(f"connectors/access/{name}.py" for name in ("jwks", "key_ring", "keys", "oidc", "scopes")),
)
_NEAR_S, _ALL_S = 300.0, 600.0
_EVERY = ("tests/unit", "-n", "2", "--dist", "worksteal")
#: pytest's exit codes: all passed; nothing was collected.
_PASSED = (0, 5)
KILLED, SURVIVED, ACCEPTED = "killed", "survived", "accepted"


class Mutant(msgspec.Struct):
    """One small change."""

    file: str
    operator: str
    line: int
    was: str
    becomes: str
    text: str

    def told(self) -> str:
        """As it is printed."""
        return f"{self.file}:{self.line} {self.operator}\n    - {self.was}\n    + {self.becomes}"


def chosen(seed: str, most: int, files: Sequence[str]) -> tuple[int, list[Mutant]]:
    """How many there are, and the sample."""
    words = [str(TOOL), str(HERE / "chosen.py"), "--seed", seed, "--most", str(most), *files]
    told = json.loads(subprocess.run(words, cwd=ROOT, check=True, capture_output=True).stdout)
    return told["of"], msgspec.convert(told["chosen"], list[Mutant], strict=False)


def accepted() -> dict[tuple[str, str, str], str]:
    """Reviewed survivors, by file, line and what it becomes, with the reason."""
    listed = tomllib.loads((HERE / "accepted.toml").read_text(encoding="utf-8")).get("accepted", [])
    return {(one["file"], one["was"], one["becomes"]): one["reason"] for one in listed}


def near(file: str) -> list[str]:
    """The unit tests that import the module by name; where none does, those that import who imports it."""
    tests = sorted((ROOT / "tests/unit").glob("test_*.py"))
    if found := _importing(file, tests):
        return found
    product = [one for top in ("schemas", "streams", "connectors") for one in sorted((ROOT / top).rglob("*.py"))]
    return sorted({test for by in _importing(file, product) for test in _importing(by, tests)})


def _importing(file: str, readers: Sequence[Path]) -> list[str]:
    module = file.removesuffix(".py").replace("/", ".")
    package, name = module.rsplit(".", 1)
    words = (f"from {module} import", f"import {module}", f"from {package} import {name}")
    return [str(one.relative_to(ROOT)) for one in readers if any(word in one.read_text("utf-8") for word in words)]


class Tree:
    """A copy of the tree to change. Its tests must pass as it is: that is looked at once, when it first matters."""

    def __init__(self, place: Path) -> None:
        self._place = copied(place)
        self._sound: set[tuple[str, ...]] = set()

    def survives(self, mutant: Mutant) -> bool:
        """Whether all unit tests pass with it; too slow is noticed too."""
        close = tuple(near(mutant.file))
        return (not close or self._passes_with(mutant, close, _NEAR_S)) and self._passes_with(mutant, _EVERY, _ALL_S)

    def _passes_with(self, mutant: Mutant, tests: tuple[str, ...], limit_s: float) -> bool:
        if tests not in self._sound:
            assert passes(self._place, tests, 3 * limit_s), f"fail, or take for ever, without any mutant: {tests}"
            self._sound.add(tests)
        path = self._place / mutant.file
        sound = path.read_text(encoding="utf-8")
        path.write_text(mutant.text, encoding="utf-8")
        try:
            return passes(self._place, tests, limit_s)
        finally:
            path.write_text(sound, encoding="utf-8")


def passes(tree: Path, tests: Sequence[str], limit_s: float) -> bool:
    """Run tests in the tree, in a process of its own."""
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
    environ = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_MAX_EXAMPLES": "50"}
    process = subprocess.Popen(
        words,
        cwd=tree,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(limit_s) in _PASSED
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def copied(to: Path) -> Path:
    """A copy of the checkout, without what git ignores."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def tried(mutants: Sequence[Mutant]) -> dict[str, list[Mutant]]:
    """What became of each; told as it happens."""
    reviewed, found = accepted(), {KILLED: list[Mutant](), SURVIVED: list[Mutant](), ACCEPTED: list[Mutant]()}
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        tree = Tree(Path(place))
        for number, mutant in enumerate(mutants, 1):
            begun = time.monotonic()
            fate = KILLED
            if (mutant.file, mutant.was, mutant.becomes) in reviewed:
                fate = ACCEPTED
            elif tree.survives(mutant):
                fate = SURVIVED
            found[fate].append(mutant)
            print(f"{number}/{len(mutants)} {fate} in {time.monotonic() - begun:.0f} s: {mutant.told()}", flush=True)
    return found


def main() -> int:
    """The exit code: 1 where a mutant survived that nobody has reviewed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default="1", help="of the sample; the same seed is the same sample")
    parser.add_argument("--most", type=int, default=24, help="mutants at most")
    parser.add_argument("--all", action="store_true", help="every mutant: hours")
    parser.add_argument("files", nargs="*", help="modules; by default all that decide about money and access")
    asked = parser.parse_args()
    of, mutants = chosen(asked.seed, 0 if asked.all else asked.most, asked.files or RULES)
    print(f"{len(mutants)} of {of} mutants, seed {asked.seed}", flush=True)
    found = tried(mutants)
    counts = ", ".join(f"{len(some)} {fate}" for fate, some in found.items())
    print(f"\nseed {asked.seed}: {counts}")
    for mutant in found[SURVIVED]:
        print(mutant.told())
    return 1 if found[SURVIVED] else 0


if __name__ == "__main__":
    sys.exit(main())
