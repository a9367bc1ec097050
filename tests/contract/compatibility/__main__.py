"""Prints incompatible changes, or records the contracts of a release: `python -m tests.contract.compatibility
[--record]`.

Without `--record` it prints every incompatible change since the last recorded contract; exit code 1 if the changelog does
not accept one. With it the present contracts are recorded under the version of pyproject.toml. It refuses while a break is
not accepted.
"""

import sys
import tomllib

from tests.contract.compatibility.breaks import CHANGELOG, open_breaks
from tests.contract.compatibility.current import contracts
from tests.contract.compatibility.recorded import FOLDER, latest, read, write
from tests.contract.compatibility.rules import breaks_between


def main(arguments: list[str]) -> int:
    """Returns the exit code; 2: an unknown argument."""
    if arguments not in ([], ["--record"]):
        print(__doc__)
        return 2
    present = contracts()
    version = tomllib.loads((CHANGELOG.parent / "pyproject.toml").read_text())["project"]["version"]
    if FOLDER.is_dir() and any(FOLDER.iterdir()):
        breaks = open_breaks(breaks_between(read(latest()), present), CHANGELOG.read_text(encoding="utf-8"))
        for one in breaks:
            print(one.sentence())
        if breaks:
            return 1
        print(f"nothing breaks since the contract of {latest()}")
    if arguments:
        write(version, present)
        print(f"recorded as {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
