"""Accidents of a deployment: kills, restarts, a shutdown of the machine, a wrong setting."""

from tests.deploy.compose import Failed
from tests.deploy.quick_start import reconciled
from tests.deploy.trial import ENVIRONMENT, SERVICES, Trial, step, until


def kills(trial: Trial) -> None:
    """Kill and restart every service while calls arrive."""
    for service in SERVICES:
        with step(f"kill and restart {service}"):
            trial.compose.run("kill", "--signal", "KILL", service)
            if service not in ("ingress", "kafka"):
                trial.post(1)
            trial.compose.run("up", "--detach", "--no-recreate", "--no-deps", service)
            trial.post(1)
            trial.compose.run("restart", service)
            trial.post(1)
    with step("healthy again, billed"):
        trial.compose.run("up", "--wait", "--no-recreate", limit_s=400)
        trial.until_billed()


def down_and_up(trial: Trial) -> None:
    """Remove all containers; the volumes keep everything."""
    with step("down, up from the volumes, billed, reconcile --lago"):
        trial.compose.run("down")
        trial.compose.run("up", "--wait", limit_s=400)
        trial.post()
        trial.until_billed()
        reconciled(trial)


def mistakes(trial: Trial) -> None:
    """A wrong setting is reported at once, with the name of a service and the reason in its log."""
    for name, value, service, waits, reason in (
        ("POSTGRES_PASSWORD", "another", "tables", "worker", "postgres_denied"),
        ("KAFKA_PARTITIONS", "6", "topics", "ingress", "partitions where 6 are expected"),
    ):
        with step(f"another {name}"):
            trial.compose.write({**ENVIRONMENT, name: value})
            code, _, err = trial.compose.ended("up", "--wait", waits, limit_s=240)
            if code == 0 or service not in err:
                raise Failed(f"up ended with {code}: {err[-1000:]}")
            if reason not in trial.compose.run("logs", service):
                raise Failed(f"{service} does not say {reason}")
    with step("another DEPLOYMENT_NAME: the worker's health check names the halted partitions"):
        trial.compose.write({**ENVIRONMENT, "DEPLOYMENT_NAME": "another"})
        trial.compose.run("up", "--detach", "worker")
        check = ("exec", "-T", "worker", "python", "-m", "connectors.processes.container_health")
        until(lambda: _halted(trial.compose.ended(*check)), "the worker is unhealthy: other_deployment", 60)
    trial.compose.write(ENVIRONMENT)
    with step("the right settings again, billed"):
        trial.compose.run("up", "--wait", limit_s=400)
        trial.post()
        trial.until_billed()


def _halted(ended: tuple[int, str, str]) -> bool:
    code, out, _ = ended
    return code == 1 and "halted" in out and "other_deployment" in out
