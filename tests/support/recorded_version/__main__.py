"""Record what a version stores, into tests/fixtures/upgrades/NAME/."""

import argparse
import asyncio
import gzip
import json
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from tests.support.checkout import Checkout
from tests.support.recorded_version import decoded
from tests.support.recorded_version.recording import FIXTURES
from tests.support.recorded_version.scenario import recorded


def applied(migrations: Path) -> dict[str, str]:
    """Return what a database of this version says of its tables: file and checksum of each migration."""
    return {path.stem: sha256(path.read_text().encode()).hexdigest() for path in sorted(migrations.glob("*.sql"))}


def main() -> int:
    """Return 0 when it is recorded."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--from", dest="folder", type=Path, required=True, help="work tree, after `make venv` in it")
    arguments.add_argument("--name", required=True, help="folder of the recording, e.g. 0.1.0")
    chosen = arguments.parse_args()
    checkout, folder = Checkout(chosen.folder), FIXTURES / chosen.name
    folder.mkdir(parents=True, exist_ok=True)
    logs = Path(tempfile.mkdtemp(prefix="meterbridge-recorded-"))
    print(f"logs in {logs}", flush=True)
    about = asyncio.run(recorded(checkout, folder, logs))
    about["migrations"] = applied(chosen.folder / "connectors" / "postgres" / "migrations")
    (folder / "about.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
    command = [checkout.python, "-P", str(Path(decoded.__file__)), str(folder)]
    said = subprocess.run(command, capture_output=True, check=True, cwd=logs).stdout
    with gzip.GzipFile(folder / "expected.jsonl.gz", "wb", mtime=0) as out:
        out.write(said)
    print(f"{about['records']} records in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
