"""The contracts that releases recorded: `tests/contract/compatibility/recorded/VERSION/NAME.json`, never edited except
their texts.
"""

import json
import re
from pathlib import Path
from typing import Final

from tests.contract.compatibility.breaks import Json

FOLDER: Final = Path(__file__).parent / "recorded"
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+")


def latest(folder: Path = FOLDER) -> str:
    """The newest version that has a recorded contract."""
    versions = [path.name for path in folder.iterdir() if _VERSION.fullmatch(path.name)]
    return max(versions, key=lambda version: tuple(map(int, version.split("."))))


def read(version: str, folder: Path = FOLDER) -> dict[str, Json]:
    """The contracts of a version, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (folder / version).glob("*.json")}


def write(version: str, contracts: dict[str, Json], folder: Path = FOLDER) -> None:
    """Record the contracts of a version, one file each."""
    (folder / version).mkdir(parents=True, exist_ok=True)
    for name, contract in contracts.items():
        text = json.dumps(contract, indent=1, ensure_ascii=False) + "\n"
        (folder / version / f"{name}.json").write_text(text, encoding="utf-8")
