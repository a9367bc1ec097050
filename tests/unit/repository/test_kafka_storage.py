"""Storage of the tests' brokers: formatted once, and each copy has its own ids."""

import sys
from pathlib import Path

import pytest

from tests.support.kafka.storage import format_storage


def ids_in(data: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (data / "meta.properties").read_text().splitlines())


class Tool:
    """Replaces Kafka's tool: creates the folder that its properties name. `fails`: prints an error and creates none."""

    def __init__(self, *, fails: bool = False) -> None:
        self.runs, self._fails = 0, fails

    def __call__(self, *words: str) -> list[str]:
        self.runs += 1
        if self._fails:
            return [sys.executable, "-c", "raise SystemExit('no space left')"]
        settings = dict(line.split("=", 1) for line in Path(words[-1]).read_text().splitlines())
        data = Path(settings["log.dirs"])
        data.mkdir()
        (data / "bootstrap.checkpoint").write_bytes(b"features")
        (data / "meta.properties").write_text("cluster.id=of the tool\n")
        return [sys.executable, "-c", ""]


def test_the_tool_runs_once_and_each_node_has_its_own_ids(tmp_path: Path) -> None:
    tool, folders = Tool(), (tmp_path / "one", tmp_path / "other")
    for node, data in zip("12", folders, strict=True):
        format_storage(tmp_path / "cache", tool, data, node, f"cluster-{node}")
    one, other = map(ids_in, folders)
    assert tool.runs == 1
    assert (one["node.id"], one["cluster.id"], one["version"]) == ("1", "cluster-1", "1")
    assert (other["node.id"], other["cluster.id"]) == ("2", "cluster-2")
    assert len(one["directory.id"]) == 22 and one["directory.id"] != other["directory.id"]
    assert {(data / "bootstrap.checkpoint").read_bytes() for data in folders} == {b"features"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "one", "other"]


def test_an_error_of_the_tool_is_reported_and_nothing_is_cached(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no space left"):
        format_storage(tmp_path / "cache", Tool(fails=True), tmp_path / "data", "1", "cluster")
    assert list(tmp_path.iterdir()) == []
