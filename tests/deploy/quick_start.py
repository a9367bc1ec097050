"""The README's quick start, and an operator's commands afterwards."""

from tests.deploy.compose import Failed, docker
from tests.deploy.trial import Trial, step

IMAGE = "meterbridge:0.1.0"
MOST_BYTES = 250_000_000


def quick_start(trial: Trial) -> None:
    """`deploy`, `test` and a first bill, as in README.md."""
    with step("deploy.sh deploy: up --build --wait"):
        trial.compose.script("deploy", limit_s=900)
        if not trial.healthy():
            raise Failed(f"{trial.compose.states()}")
    size = int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE))
    print(f"          the image has {size / 1e6:.1f} MB")
    if size >= MOST_BYTES:
        raise Failed(f"the image is larger than {MOST_BYTES / 1e6:.0f} MB")
    with step("lago setup, an org with a subscription, a mapping"):
        trial.compose.run("run", "--rm", "-T", "tools", "lago", "setup")
        trial.map_acme()
    with step("usage in, billed"):
        trial.post()
        trial.until_billed()
    with step("deploy.sh test"):
        print(trial.compose.script("test"), end="")


def commands(trial: Trial) -> None:
    """An operator's commands, inside a container."""
    with step("doctor, explain, reconcile, dlq list, held list"):
        findings, story, *_ = trial.compose.commands(
            ("doctor",), ("explain", "--request", "try-1"), ("reconcile", "--lago"), ("dlq", "list"), ("held", "list")
        )
        known = {finding["code"] for finding in findings["findings"]}
        if known & {"no_webhook_credentials", "spool_unset"}:
            raise Failed(f"doctor does not see what is set: {known}")
        if story["calls"][0]["event"]["status"] != "completed":
            raise Failed(f"explain: {story}")
    with step("deploy.sh status, logs"):
        trial.compose.script("status")
        if "ingress" not in trial.compose.script("logs", "--tail", "5", "ingress"):
            raise Failed("deploy.sh logs shows nothing of the ingress")


def reconciled(trial: Trial) -> None:
    """Received usage equals billed usage, according to the product's own command."""
    if not (result := trial.compose.command("reconcile", "--lago"))["adds_up"]:
        raise Failed(f"reconcile --lago: {result}")


def usage_of_machine() -> None:
    """`docker stats`, to plan memory."""
    print(docker("stats", "--no-stream", "--format", "{{.Name}}\t{{.MemUsage}}\t{{.CPUPerc}}"))
