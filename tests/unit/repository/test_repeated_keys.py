"""No data file has a key twice in one object: JSON and YAML would keep the last one without an error, and TOML refuses it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("connectors/**/*.json", "deploy/*.yml", "deploy/helm/*.yml", "deploy/helm/meterbridge/values.yaml")
    for path in ROOT.glob(pattern)
)


def unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    names = [name for name, _ in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"twice: {twice}")
    return dict(pairs)


class Loader(yaml.SafeLoader):
    """Refuses a key that is there already."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        return unique([tuple(self.construct_object(one, deep=True) for one in pair) for pair in node.value])  # type: ignore[misc]


@pytest.mark.parametrize("name", FILES)
def test_a_data_file_has_each_key_once(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert json.loads(text, object_pairs_hook=unique) if name.endswith(".json") else yaml.load(text, Loader)


@pytest.mark.parametrize(
    "read", [lambda text: json.loads(text, object_pairs_hook=unique), lambda text: yaml.load(text, Loader)]
)
def test_a_key_that_is_there_twice_is_found(read: Any) -> None:
    with pytest.raises(ValueError, match="twice"):
        read('{"a": {"b": 1, "b": 2}}')
