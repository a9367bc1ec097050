"""The plugin as installed in a proxy: its wheel, one file on the path, in an environment with only httpx."""

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.contract.test_sdk_wheel import copy_distribution, pip, requirements
from tests.support.eventually import PATIENCE

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
import meterbridge_litellm
from tests.support.eventually import PATIENCE

handler = meterbridge_litellm.handler
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({
    "from": meterbridge_litellm.__file__,
    "class": type(handler).__name__,
    "same": handler is meterbridge_litellm.handler,
    "loaded": sorted(loaded & {"schemas", "streams", "connectors", "msgspec", "structlog", "aiohttp", "confluent_kafka"}),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    plugin = str(ROOT / "connectors" / "litellm" / "plugin")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), plugin, cwd=folder)
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_alone_on_the_path_is_a_working_plugin(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "environment", with_pip=False)
    site = tmp_path / "environment/lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for name in requirements("httpx"):
        copy_distribution(name, site)
    environ = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(wheel),
        "METERBRIDGE_URL": "http://127.0.0.1:1",
        "METERBRIDGE_SECRET": "secret",
        "METERBRIDGE_RING_PATH": str(tmp_path / "ring"),
    }
    python = str(tmp_path / "environment/bin/python")
    done = subprocess.run(
        [python, "-c", PROGRAM], env=environ, capture_output=True, text=True, timeout=60 * PATIENCE, check=True
    )
    result = json.loads(done.stdout)
    assert result.pop("from").startswith(str(wheel))
    assert result == {"class": "_PROXY_Meterbridge", "same": True, "loaded": []}
    assert [path.suffix for path in (tmp_path / "ring").iterdir()] == [".lane"]


def test_the_wheel_requires_httpx_and_has_one_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    required = [Requirement(text) for text in re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)]
    assert [one.name for one in required] == ["httpx"]
    assert {name.partition("/")[0] for name in names} == {
        "meterbridge_litellm",
        "meterbridge_litellm-0.1.0.dist-info",
    }
    assert "meterbridge_litellm-0.1.0.dist-info/licenses/LICENSE" in names


def test_each_file_is_short() -> None:
    folder = ROOT / "connectors" / "litellm" / "plugin" / "meterbridge_litellm"
    assert max(len(path.read_text().splitlines()) for path in folder.glob("*.py")) <= 400
