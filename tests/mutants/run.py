"""`make mutants`: which small changes to the rules does no unit test notice?

The mistakes of `named.toml` come first, then a sample of what Cosmic Ray makes. Each is tried in a copy of the tree, with
the unit tests that import its module, the nearest first. What survives and is not in `accepted.toml` makes the exit
code 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import msgspec

from tests.mutants.rules import HERE, ROOT, Mutant, accepted, mistakes, rules
from tests.mutants.trees import Tree

TOOL = HERE / ".venv" / "bin" / "python"
KILLED, SURVIVED, ACCEPTED = "killed", "survived", "accepted"


def chosen(seed: str, most: int, files: Sequence[str]) -> tuple[int, list[Mutant]]:
    """Return how many there are, and the sample."""
    words = [str(TOOL), str(HERE / "chosen.py"), "--seed", seed, "--most", str(most), *files]
    result = json.loads(subprocess.run(words, cwd=ROOT, check=True, capture_output=True).stdout)
    return result["of"], msgspec.convert(result["chosen"], list[Mutant], strict=False)


def try_mutants(mutants: Sequence[Mutant], seed: str, jobs: int) -> dict[str, list[Mutant]]:
    """Try each, `jobs` at a time, and print each result as it happens."""
    reviewed, found = accepted(), {KILLED: list[Mutant](), SURVIVED: list[Mutant](), ACCEPTED: list[Mutant]()}
    with tempfile.TemporaryDirectory(prefix="mutants-") as place, ThreadPoolExecutor(jobs) as pool:
        trees: SimpleQueue[Tree] = SimpleQueue()
        for number in range(jobs):
            trees.put(Tree(Path(place) / str(number)))

        def fate_of(mutant: Mutant) -> tuple[str, str, float]:
            if (mutant.file, mutant.was, mutant.becomes) in reviewed:
                return ACCEPTED, "", 0
            tree, begun = trees.get(), time.monotonic()
            try:
                by = tree.killer(mutant, seed)
            finally:
                trees.put(tree)
            return KILLED if by else SURVIVED, by, time.monotonic() - begun

        for number, (mutant, (fate, by, took_s)) in enumerate(zip(mutants, pool.map(fate_of, mutants), strict=True), 1):
            found[fate].append(mutant)
            whom = f" by {by}" if by else ""
            print(f"{number}/{len(mutants)} {fate}{whom} in {took_s:.0f} s: {mutant.printed()}", flush=True)
    return found


def main() -> int:
    """The exit code: 1 if an unreviewed mutant survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default="1", help="of the sample; the same seed is the same sample")
    parser.add_argument("--most", type=int, default=24, help="mutants at most, beside the named mistakes")
    parser.add_argument("--all", action="store_true", help="every mutant: hours")
    parser.add_argument("--named", action="store_true", help="the named mistakes alone")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="mutants at a time")
    parser.add_argument("files", nargs="*", help="modules; by default all that decide about money and access")
    asked = parser.parse_args()
    named = [mistake.mutant() for mistake in mistakes(asked.files or None)]
    of, sample = (0, []) if asked.named else chosen(asked.seed, 0 if asked.all else asked.most, asked.files or rules())
    print(f"{len(named)} named mistakes, {len(sample)} of {of} mutants, seed {asked.seed}", flush=True)
    found = try_mutants([*named, *sample], asked.seed, asked.jobs)
    counts = ", ".join(f"{len(some)} {fate}" for fate, some in found.items())
    print(f"\nseed {asked.seed}: {counts}")
    for mutant in found[SURVIVED]:
        print(mutant.printed())
    return 1 if found[SURVIVED] else 0


if __name__ == "__main__":
    sys.exit(main())
