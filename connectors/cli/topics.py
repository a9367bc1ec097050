"""`meterbridge topics`: create, check and expand the topics of the catalogue, and the rights of the roles, on the broker."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import typer

from connectors.cli.base import progress, say
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail, print_error
from connectors.config.connections import deployment_of, kafka_connection, topic_layout
from connectors.config.settings import Settings
from connectors.kafka.acls import acls
from connectors.kafka.admin import TopicsCreated, check_topics, create_topics, missing_topics, wrong_topics
from connectors.kafka.rights import Comparison, compared, lines_of_rights, rights_of
from connectors.kafka.rights_on_broker import create_rights, remove_rights, stored_rights
from connectors.operations.expansion import ExpansionPlan, carry_out, plan_expansion
from schemas.plurals import numbered
from schemas.topics import TopicNames
from streams.state.ledger_expand import Expanded


def create(*, with_acls: bool, principal: str, dry_run: bool, remove_extra: bool, as_json: bool) -> None:
    """Run `meterbridge topics create`."""
    if remove_extra and not with_acls:
        fail("--remove-extra needs --acls. Give both.", 2)
    with one_sentence():
        settings = settings_of_command()
        kafka, layout = kafka_connection(settings), topic_layout(settings)
        done = TopicsCreated(missing_topics(kafka, layout), ()) if dry_run else create_topics(kafka, layout)
        wrong = wrong_topics(kafka, layout) if done.existed else []
        rights = _rights(settings, principal, change=not dry_run, remove=remove_extra) if with_acls else None
    answer: dict[str, Any] = {"created": done.created, "existed": done.existed}
    lines = [f"{numbered(len(done.created), 'topic')} created, {len(done.existed)} existed.", *done.created]
    if dry_run:
        answer = {"would_create": done.created}
        lines = [f"{numbered(len(done.created), 'topic')} would be created.", *done.created]
    if rights is not None:
        answer["rights"] = rights
        lines += _report(rights, dry_run=dry_run, removed=remove_extra)
    say(answer, as_json=as_json, table=lambda: "\n".join(lines))
    for complaint in wrong:
        print_error(complaint.sentence)
    if any(complaint.stops for complaint in wrong):
        raise typer.Exit(1)


def _rights(settings: Settings, principal: str, *, change: bool, remove: bool) -> Comparison:
    """Compare the rights on the brokers; create missing ones, and on request remove extra ones."""
    kafka, names = kafka_connection(settings), TopicNames.with_prefix(settings.topic_prefix)
    wanted = rights_of(acls(names, settings.topic_prefix, settings.deployment_name), principal)
    found = compared(wanted, stored_rights(kafka), principal)
    if change:
        create_rights(kafka, found.missing)
    if change and remove:
        remove_rights(kafka, found.extra)
    return found


def _report(found: Comparison, *, dry_run: bool, removed: bool) -> Iterator[str]:
    """Yield the rights for people: the new ones by principal, and the extra ones as arguments of kafka-acls.sh."""
    would = "would be " if dry_run else ""
    yield f"{len(found.missing)} rights {would}created, {len(found.existing)} existed."
    if dry_run:
        yield from lines_of_rights(found.missing, "--add")
    if found.extra:
        yield f"{len(found.extra)} rights of these principals that no role of this deployment needs" + (
            f", {would}removed:" if removed else "; --remove-extra removes them:"
        )
        yield from lines_of_rights(found.extra, "--remove")


def check(*, as_json: bool) -> None:
    """Run `meterbridge topics check`."""
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


def expand(partitions: int, comment: str, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Run `meterbridge topics expand`."""
    with one_sentence():
        deployment = deployment_of(settings_of_command())
        planned = plan_expansion(deployment, partitions)
        if planned.old and partitions % planned.old:
            fail(
                f"--partitions: {partitions} is not a multiple of {planned.old}, today's number. Give, for example, {2 * planned.old}.",
                2,
            )
        do = planned.needed and yes and not dry_run
        audit_id, lines = "", list[Expanded]()
        if do:
            with progress("moving ledgers", planned.old, quiet=as_json) as on_progress:
                audit_id, lines = asyncio.run(carry_out(deployment, planned, comment, lambda: on_progress(1)))
    answer = {"was": planned.old, "partitions": partitions, "done": do or not planned.needed, "audit_id": audit_id}
    answer |= {"grows": planned.grows, "ledgers": [msgspec.to_builtins(line) for line in lines]}
    say(answer, as_json=as_json, table=lambda: _expansion(planned, done=do))


def _expansion(planned: ExpansionPlan, *, done: bool) -> str:
    if not planned.needed:
        return f"All topics have {planned.new} partitions: set KAFKA_PARTITIONS={planned.new} everywhere."
    verb = "grew" if done else "would grow, with --yes,"
    lines = [f"{name} {verb} to {planned.new} partitions." for name in planned.grows]
    if done:
        lines.append(f"Set KAFKA_PARTITIONS={planned.new} everywhere, then start the workers.")
    return "\n".join(lines)


def show_acls(principal: str, *, as_json: bool) -> None:
    """Run `meterbridge topics acls`."""
    with one_sentence():
        settings = settings_of_command()
    names = TopicNames.with_prefix(settings.topic_prefix)
    entries = list(acls(names, settings.topic_prefix, settings.deployment_name))
    lines = list(lines_of_rights(rights_of(entries, principal)))
    say({"acls": entries}, as_json=as_json, table=lambda: "\n".join(lines))
