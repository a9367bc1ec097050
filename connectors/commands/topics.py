"""`meterbridge topics`: the catalogue on the broker."""

from typing import Annotated

import typer

from connectors.commands.base import AsJson, one_sentence, say, settings_of_command, tell
from connectors.kafka.acls import acls, command_lines
from connectors.kafka.admin import check_topics, create_topics, wrong_topics
from schemas.topics import TopicNames

topics = typer.Typer(help="Create or check the Kafka topics.", no_args_is_help=True)


@topics.command(epilog="Example: KAFKA_PARTITIONS=12 meterbridge topics create")
def create(as_json: AsJson = False) -> None:
    """Create missing topics. Existing topics are not changed; a sentence names each one that is wrong. Exit code 1 if no
    process can start with one, for its number of partitions or a setting by which usage is lost."""
    with one_sentence():
        settings = settings_of_command()
        done = create_topics(settings)
        wrong = wrong_topics(settings) if done.existed else []
    lines = [f"{len(done.created)} topics created, {len(done.existed)} were there.", *done.created]
    say({"created": done.created, "existed": done.existed}, as_json=as_json, table=lambda: "\n".join(lines))
    for complaint in wrong:
        tell(complaint.sentence)
    if any(complaint.stops for complaint in wrong):
        raise typer.Exit(1)


@topics.command(epilog="Example: meterbridge topics check && meterbridge worker")
def check(as_json: AsJson = False) -> None:
    """Print one sentence for each topic that is missing or wrong; exit code 1 if there is one."""
    with one_sentence():
        complaints = check_topics(settings_of_command())
    if as_json:
        say({"right": not complaints, "complaints": complaints}, as_json=True, table=str)
    for complaint in complaints:
        tell(complaint)
    if complaints:
        raise typer.Exit(1)
    if not as_json:
        typer.echo("All topics are as they should be.")


@topics.command(name="acls", epilog="Example: meterbridge topics acls --principal User:billing-")
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
    with one_sentence():
        settings = settings_of_command()
    names = TopicNames.with_prefix(settings.topic_prefix)
    found = list(acls(names, settings.topic_prefix, settings.deployment_name))
    lines = list(command_lines(found, principal))
    say({"acls": found}, as_json=as_json, table=lambda: "\n".join(lines))
