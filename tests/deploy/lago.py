"""`deploy/compose/lago.yml`: keys, order, health and a first bill, with a stand-in for Lago's own images."""

import stat
from pathlib import Path

from tests.deploy.compose import LAGO_FILE, Compose, Failed, docker
from tests.deploy.quick_start import reconciled
from tests.deploy.trial import Trial, step

_API, _FRONT, _REDIS = (f"meterbridge-deploy-test/{name}:1" for name in ("lago-api", "lago-front", "redis"))
IMAGES = {
    "LAGO_API_IMAGE": _API,
    "LAGO_FRONT_IMAGE": _FRONT,
    # Lago's own has an extension more; the stand-in does not need it.
    "LAGO_POSTGRES_IMAGE": "postgres:17.6",
    "WINDOW_SECONDS": "10",
    "GRACE_SECONDS": "2",
}
INTEGRATION = "http://127.0.0.1:3002"


def with_lago(folder: Path) -> int:
    """From only the example settings to billed calls; returns how many."""
    compose = Compose(folder, IMAGES, LAGO_FILE, "meterbridge-deploy-test-lago")
    trial = Trial(compose, ingress=INTEGRATION, api=INTEGRATION)
    compose.remove()  # leftovers of a killed run
    try:
        _keys(compose)
        with step("stand-ins for Lago's images"):
            compose.run("build", "topics", limit_s=900)
            here = str(Path(__file__).parent / "lago_stand_in")
            images = {_API: "api", _FRONT: "front"}
            if not compose.can_have("redis"):
                print("          not tried, its image cannot be had: redis")
                with compose.env_file.open("a") as settings:
                    settings.write(f"REDIS_IMAGE='{_REDIS}'\n")
                images[_REDIS] = "redis"
            for image, target in images.items():
                docker("build", "--quiet", "--target", target, "--tag", image, here)
        with step("lago.yml: deploy.sh deploy"):
            compose.script("deploy", limit_s=600)
        with step("lago.yml: usage in at 3002, billed, reconcile --lago"):
            trial.map_acme()
            trial.post()
            trial.until_billed()
            reconciled(trial)
        with step("lago.yml: deploy.sh test, status; psql in both databases; Redis at its port"):
            print(compose.script("test"), end="")
            compose.script("status")
            for name in ("lago", "meterbridge"):
                compose.run(
                    "exec", "-T", "postgres", "psql", "--username", name, "--dbname", name, "--command", "SELECT 1"
                )
            for service, port in (("postgres", "5432"), ("redis", "6379")):
                print(f"          {service}: {compose.run('port', service, port)}", end="")
        with step("lago.yml: deploy.sh backup --stop, restore into new volumes, deploy, billed"):
            compose.script("backup", "--stop", str(folder / "with-lago"))
            compose.run("down")
            for volume in ("kafka-data", "postgres-data", "lago-storage", "redis-data", "ingress-spool"):
                docker("volume", "rm", f"{compose.project}_{volume}")
            compose.script("restore", str(folder / "with-lago"))
            compose.script("deploy", limit_s=600)
            trial.post()
            trial.until_billed()
            reconciled(trial)
        return trial.sent
    except Failed:
        print(compose.run("ps", "--all", strict=False))
        print(compose.run("logs", "--tail", "15", "--no-log-prefix", strict=False)[-6000:])
        raise
    finally:
        compose.remove()


def _keys(compose: Compose) -> None:
    """Every key is generated once, and a second run changes none."""
    with step("lago.yml: deploy.sh keys"):
        compose.script("keys")
        created = compose.env_file.read_text()
        compose.script("keys")
        if compose.env_file.read_text() != created:
            raise Failed("deploy.sh keys changed what was there")
        if stat.S_IMODE(compose.env_file.stat().st_mode) != 0o600:
            raise Failed("others can read the keys")
