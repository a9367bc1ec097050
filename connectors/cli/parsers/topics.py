"""Words, options and help of `meterbridge topics`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import PRINCIPAL, AsJson, Comment, DryRun, Principal, group

topics = group("Create, check or expand the Kafka topics, and the rights of the roles.")


@topics.command(epilog="Example: meterbridge topics create --acls --dry-run")
@deferred()
def create(
    with_acls: Annotated[
        bool,
        typer.Option(
            "--acls",
            help="Also create the access-control lists of each role. This needs an administrator's account: the right Alter on the cluster.",
        ),
    ] = False,
    principal: Principal = PRINCIPAL,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Change nothing; print what would be done, lists as arguments of kafka-acls.sh."
        ),
    ] = False,
    remove_extra: Annotated[
        bool,
        typer.Option(
            "--remove-extra",
            help="With --acls: remove the lists of these principals that no role of this deployment needs. Not where deployments share "
            "principals.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create missing topics. Existing topics are not changed; a sentence names each one that is wrong. Exit code 1 if
    no process can start with a topic, because of its number of partitions or a setting by which usage is lost.
    """


@topics.command(epilog="Example: meterbridge topics check && meterbridge worker")
@deferred()
def check(as_json: AsJson = False) -> None:
    """Print one sentence for each topic that is missing or wrong. Exit code 1 if there is such a topic."""


@topics.command(
    epilog="Example: meterbridge topics expand --partitions 24 --comment 'twelve meters are not enough' --yes"
)
@deferred()
def expand(
    partitions: Annotated[
        int, typer.Option(min=1, max=1000, help="The new number: a multiple of the current KAFKA_PARTITIONS.")
    ],
    comment: Comment = "",
    yes: Annotated[bool, typer.Option("--yes", help="Make the changes. Without it they are only shown.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Add partitions to the raw topic and to the topics with the same number of partitions. The ledgers' data about
    calls moves to the new partitions.

    Stop the workers first; the ingress and the API may run. If the command is killed, nothing is lost or billed twice:
    repeat it until it ends with 0. Only then start the workers, with the new KAFKA_PARTITIONS. Exit code 0: done, or
    can be done with --yes; 1: not possible now; 2: not possible with this number.
    """


@topics.command(name="acls", epilog="Example: meterbridge topics acls --principal User:billing-")
@deferred()
def show_acls(principal: Principal = PRINCIPAL, as_json: AsJson = False) -> None:
    """Print the access-control lists of Kafka that each role needs, as arguments of kafka-acls.sh; nothing is changed."""
