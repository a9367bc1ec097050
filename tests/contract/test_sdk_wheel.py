"""The SDK as users get it: its wheel, built and installed as on docs/sdk.md, in an environment with only httpx."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.eventually import PATIENCE
from tests.support.org_api import org_api
from tests.support.page_programs import DOCS, printed, programs

ROOT = Path(__file__).parents[2]
#: Modules that a service may have, as the application has them.
SCHEMAS = "class Order:\n    pass\n"
PROGRAM = """
import asyncio, json, os, sys

import schemas, streams, connectors
import meterbridge_sdk
from meterbridge_sdk.asgi import OrgBillingMiddleware

async def service(scope, receive, send):
    scope["state"]["user"] = {"id": "user_1", "org_id": "org_1"}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-tokens-used", b"150")]})
    await send({"type": "http.response.body", "body": b"42"})

async def main():
    async def send(message):
        pass

    app = OrgBillingMiddleware(service)
    async with meterbridge_sdk.org_billing_service(os.environ["URL"], "key") as billing:
        for key in (b"1", b"1", b"2"):
            headers = [(b"idempotency-key", key)]
            await app({"type": "http", "method": "POST", "path": "/v1/chat", "headers": headers}, None, send)
        limits = await meterbridge_sdk.get_org_plan_limits("org_1")
    counts = billing.recorder.counts
    installed = {name.partition(".")[0] for name in sys.modules}
    print(json.dumps({
        "own": schemas.Order.__module__,
        "recorded": counts.recorded,
        "dropped": counts.dropped + counts.rejected,
        "limits": limits,
        "from": meterbridge_sdk.__file__,
        "loaded": sorted(installed & {"faust", "aiokafka", "confluent_kafka", "msgspec", "structlog", "aiohttp"}),
    }))

asyncio.run(main())
"""


def requirements(name: str) -> set[str]:
    """The installed distribution and everything that it needs."""
    found, waiting = set[str](), [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needs = map(Requirement, distribution(name).requires or [])
            waiting += [one.name for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def copy_distribution(name: str, site: Path) -> None:
    """Copies the installed files, so that the installation needs no network."""
    for file in distribution(name).files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), site / file)


def pip(*arguments: str, python: Path | None = None, cwd: Path) -> None:
    target = [] if python is None else ["--python", str(python)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *target, *arguments, "--no-index"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300 * PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with nothing but the SDK, and `dist/` with its wheel."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "connectors" / "sdk", folder / "connectors" / "sdk", symlinks=True)
    shutil.copy(ROOT / "LICENSE", folder / "LICENSE")
    pip(*shlex.split(commands()[0])[1:], "--no-build-isolation", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def python(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that has httpx and the installed wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for name in requirements("httpx"):
        copy_distribution(name, site)
    interpreter = folder / "bin" / "python"
    pip(*shlex.split(commands()[1])[1:], python=interpreter, cwd=clone)
    return interpreter


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """The folder of a service whose modules have the same names as ours."""
    for name in ("schemas", "streams", "connectors"):
        (tmp_path / f"{name}.py").write_text(SCHEMAS)
    return tmp_path


def commands() -> list[str]:
    """The commands on the page that build the wheel and install it."""
    text = (DOCS / "sdk.md").read_text(encoding="utf-8")
    [block] = [block for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "pip" in block]
    built, installed = block.strip().splitlines()
    return [built, installed]


async def test_a_service_with_modules_named_like_ours_bills_with_the_installed_wheel(
    python: Path, service: Path
) -> None:
    async with org_api() as api:
        await api.set_up("starter")
        await api.org("PUT", "/limits", json={"limits": {"tokens": 9}})
        result = json.loads(await printed(PROGRAM, {"URL": str(api.http.base_url)}, str(python), service))
        assert str(python.parents[1]) in result.pop("from")
        assert result == {"own": "schemas", "recorded": 2, "dropped": 0, "limits": {"tokens": 9}, "loaded": []}
        assert [call.properties["tokens"] for call in api.usage.all.values()] == ["150", "150"]


async def test_the_pages_program_that_records_a_call_runs_there(python: Path, service: Path) -> None:
    async with org_api() as api:
        environ = {"METERBRIDGE_URL": str(api.http.base_url), "METERBRIDGE_API_KEY": "key"}
        assert await printed(programs("sdk.md")[1], environ, str(python), service) == "recorded"
        assert list(api.usage.all) == ["call-1"]


def test_the_wheel_requires_httpx_and_has_one_package(clone: Path) -> None:
    [wheel] = (clone / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    required = [Requirement(text) for text in re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)]
    assert {one.name for one in required if one.marker is None} == {"httpx"}
    assert {one.name for one in required if one.marker is not None} == {"aiohttp"}, "an extra"
    assert {name.partition("/")[0] for name in names} == {"meterbridge_sdk", "meterbridge_sdk-0.1.0.dist-info"}
    assert "meterbridge_sdk/py.typed" in names
    assert "meterbridge_sdk-0.1.0.dist-info/licenses/LICENSE" in names


def test_the_wheel_of_the_application_has_no_sdk(tmp_path: Path) -> None:
    """Both can be installed in one environment."""
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT), cwd=tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "connectors/__main__.py" in names
    assert not [name for name in names if "sdk" in name]
