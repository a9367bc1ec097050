"""Files that one can read at once."""

from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDERS = ("bench", "connectors", "deploy", "schemas", "streams", "tests")
MOST_LINES = 400


def test_no_source_file_has_more_than_400_lines() -> None:
    files = chain.from_iterable((ROOT / folder).rglob("*.py") for folder in FOLDERS)
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
        if not {".venv", "node_modules", "build"} & {*path.parts}
    }
    assert len(lengths) > len(FOLDERS)
    assert {name: count for name, count in lengths.items() if count > MOST_LINES} == {}
