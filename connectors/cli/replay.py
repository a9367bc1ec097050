"""`meterbridge replay`: send the records of a period again."""

from pathlib import Path
from typing import Any

from connectors.cli.base import progress, say, span_us, table_of
from connectors.cli.running import one_sentence, settings_of_command
from connectors.config.connections import deployment_of
from connectors.operations.audit_record import audited
from connectors.operations.near_names import ID_ALIKE, did_you_mean
from connectors.operations.replay import RangeContents, Replay, by_customer
from connectors.operations.sender import CommandProducer
from schemas.money import plain
from schemas.plurals import numbered


def replay(
    since: str,
    until: str,
    customer: str,
    target_topic: str,
    checkpoint: Path | None,
    comment: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run `meterbridge replay`."""
    since_us, until_us = span_us(since, until)
    with one_sentence():
        deployment = deployment_of(settings_of_command())
        planned = Replay.planned(deployment, since_us // 1000, until_us // 1000, target_topic, customer)
        if dry_run:
            with progress("reading", planned.stretch.offsets, quiet=as_json) as passed:
                contents = planned.contents(passed)
            none = not (as_json or contents.customers or contents.unreadable)
            nothing = _nothing(planned) if none else ""
            say(_answer(contents), as_json=as_json, table=lambda: nothing or _table(contents))
            return
        sender = CommandProducer(deployment.kafka)
        audited(deployment, sender, "replay", planned.asked(), reason=comment, count=planned.stretch.offsets)
        with progress("replaying", planned.stretch.offsets, quiet=as_json) as passed:
            count = planned.run(sender, checkpoint, passed)
        nothing = "" if as_json or count else _nothing(planned)
    answer = {"target_topic": planned.target_topic, "records": count}
    say(
        answer,
        as_json=as_json,
        table=lambda: nothing or f"{numbered(count, 'record was', 'records were')} sent into {planned.target_topic}.",
    )


def _nothing(planned: Replay) -> str:
    """Say that there is no call, and of a customer whether others have some: the id may be misspelt. `""` = there are
    calls, which an earlier run has sent.
    """
    names = planned.names()
    if not names:
        return "There is no call in this time."
    if planned.customer in ("", *names):
        return ""
    meant = did_you_mean(planned.customer, names, ID_ALIKE)
    others = numbered(len(names), "other customer has", "other customers have")
    return f"There is no call of {planned.customer!r} in this time; {others} some{f': {meant}' if meant else '.'}"


def _answer(contents: RangeContents) -> dict[str, Any]:
    return {
        "dry_run": True,
        **contents.total().as_object(),
        "unreadable": contents.unreadable,
        "customers": by_customer(contents.customers),
    }


def _table(contents: RangeContents) -> Any:
    named = [*sorted(contents.customers.items()), ("all", contents.total())]
    rows = [(name, one.calls, one.tokens, plain(one.usd)) for name, one in named]
    unread = f"; {numbered(contents.unreadable, 'record has', 'records have')} no call" if contents.unreadable else ""
    return table_of(("customer", "calls", "tokens", "USD"), rows, f"Would be sent{unread}")
