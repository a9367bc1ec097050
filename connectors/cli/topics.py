"""`meterbridge topics`: create and check the topics of the catalogue on the broker."""

import typer

from connectors.cli.base import one_sentence, say, settings_of_command
from connectors.cli.sentences import print_error
from connectors.config.connections import kafka_connection, topic_layout
from connectors.kafka.acls import acls, command_lines
from connectors.kafka.admin import check_topics, create_topics, wrong_topics
from schemas.topics import TopicNames


def create(*, as_json: bool) -> None:
    """`meterbridge topics create`."""
    with one_sentence():
        settings = settings_of_command()
        kafka, layout = kafka_connection(settings), topic_layout(settings)
        done = create_topics(kafka, layout)
        wrong = wrong_topics(kafka, layout) if done.existed else []
    lines = [f"{len(done.created)} topics created, {len(done.existed)} existed.", *done.created]
    say({"created": done.created, "existed": done.existed}, as_json=as_json, table=lambda: "\n".join(lines))
    for complaint in wrong:
        print_error(complaint.sentence)
    if any(complaint.stops for complaint in wrong):
        raise typer.Exit(1)


def check(*, as_json: bool) -> None:
    """`meterbridge topics check`."""
    with one_sentence():
        settings = settings_of_command()
        complaints = check_topics(kafka_connection(settings), topic_layout(settings))
    if as_json:
        say({"right": not complaints, "complaints": complaints}, as_json=True, table=str)
    for complaint in complaints:
        print_error(complaint)
    if complaints:
        raise typer.Exit(1)
    if not as_json:
        typer.echo("All topics are as they should be.")


def show_acls(principal: str, *, as_json: bool) -> None:
    """`meterbridge topics acls`."""
    with one_sentence():
        settings = settings_of_command()
    names = TopicNames.with_prefix(settings.topic_prefix)
    entries = list(acls(names, settings.topic_prefix, settings.deployment_name))
    lines = list(command_lines(entries, principal))
    say({"acls": entries}, as_json=as_json, table=lambda: "\n".join(lines))
