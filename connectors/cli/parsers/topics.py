"""Words, options and help of `meterbridge topics`."""

from typing import Annotated

import typer

from connectors.cli.parsers.deferred import deferred
from connectors.cli.parsers.options import AsJson, group

topics = group("Create or check the Kafka topics.")


@topics.command(epilog="Example: KAFKA_PARTITIONS=12 meterbridge topics create")
@deferred()
def create(as_json: AsJson = False) -> None:
    """Create missing topics. Existing topics are not changed; a sentence names each one that is wrong. Exit code 1 if no
    process can start with one, for its number of partitions or a setting by which usage is lost."""


@topics.command(epilog="Example: meterbridge topics check && meterbridge worker")
@deferred()
def check(as_json: AsJson = False) -> None:
    """Print one sentence for each topic that is missing or wrong; exit code 1 if there is one."""


@topics.command(name="acls", epilog="Example: meterbridge topics acls --principal User:billing-")
@deferred()
def show_acls(
    principal: Annotated[
        str,
        typer.Option(
            help="How each principal begins; the role follows: ingress, meter, sink, retry, project, api, operator."
        ),
    ] = "User:meterbridge-",
    as_json: AsJson = False,
) -> None:
    """Print the access-control lists of Kafka that each role needs, as arguments of kafka-acls.sh; nothing is changed."""
