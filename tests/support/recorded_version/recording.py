"""Recordings for tests: what an earlier version stored, and its own decoding of it."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.recorded_version.topics import Recorded, read

FIXTURES = Path(__file__).parents[2] / "fixtures" / "upgrades"


@dataclass(frozen=True, slots=True)
class Recording:
    """One version's; `about` is its about.json."""

    folder: Path
    about: dict[str, Any]

    def records(self) -> Iterator[Recorded]:
        """Return what the topics held, each partition in order."""
        return read(self.folder / "topics.jsonl.gz")

    def expected(self) -> Iterator[dict[str, Any]]:
        """Yield the same records as that version decoded them."""
        with gzip.open(self.folder / "expected.jsonl.gz") as lines:
            yield from map(json.loads, lines)

    def spool(self, path: Path) -> Path:
        """Write the version's spool file to `path`."""
        path.write_bytes(gzip.decompress((self.folder / "spool.db.gz").read_bytes()))
        return path


RECORDINGS = [Recording(path.parent, json.loads(path.read_text())) for path in sorted(FIXTURES.glob("*/about.json"))]
