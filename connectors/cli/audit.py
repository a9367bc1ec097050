"""`meterbridge audit`: verify that the audit log was not changed."""

import asyncio
from dataclasses import asdict
from typing import Any

import typer

from connectors.access.audit_chain import ChainHead
from connectors.cli.base import say
from connectors.cli.optional_database import optional_database
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.config.connections import deployment_of
from connectors.config.settings import Settings
from connectors.operations.audit_check import seen_in_table, table_verified, topic_verified
from schemas.plurals import numbered


def verify(head: str, *, as_json: bool) -> None:
    """Run `meterbridge audit verify`."""
    noted = _noted(head)
    with one_sentence():
        answer = asyncio.run(_verified(settings_of_command(), noted))
    say(answer, as_json=as_json, table=lambda: _text(answer))
    if answer["broken"] is not None or answer["row"] is not None:
        raise typer.Exit(1)


async def _verified(settings: Settings, noted: ChainHead | None) -> dict[str, Any]:
    deployment = deployment_of(settings)
    topic = deployment.topics.audit
    with optional_database(settings) as database:
        seen = await seen_in_table(topic, database) if database is not None else (0, {})
        verdict, lines = await asyncio.to_thread(topic_verified, deployment.kafka, topic, noted)
        row = None
        if database is not None:
            row = await table_verified(database, lines, *seen, from_the_beginning=not lines or lines[0].offset == 0)
    return {
        "lines": verdict.lines,
        "unchained": verdict.old,
        "unchecked": verdict.unchecked,
        "rows": len(seen[1]) if database is not None else None,
        "head": f"{verdict.head.covered}:{verdict.head.chain}" if verdict.head.covered else "",
        "broken": None if verdict.broken is None else asdict(verdict.broken),
        "row": None if row is None else asdict(row),
    }


def _noted(head: str) -> ChainHead | None:
    if not head:
        return None
    covered, _, chain = head.partition(":")
    if not covered.isdecimal() or len(chain) != 64:
        fail(
            "--head: not the head of an audit log. Give what `audit verify` printed: a number, a colon and 64 hexadecimal digits.",
            2,
        )
    return ChainHead("", int(covered), chain)


def _text(answer: dict[str, Any]) -> str:
    sentences = [f"{numbered(answer['lines'], 'line')}; older than the chain: {answer['unchained']}."]
    if answer["unchecked"]:
        sentences.append(
            f"{numbered(answer['unchecked'], 'line')} at the beginning cannot be checked: what was before has expired."
        )
    if (broken := answer["broken"]) is not None:
        sentences.append(
            f"{broken['kind']}: line {broken['audit_id']} at offset {broken['offset']}: {broken['detail']}."
        )
    if (row := answer["row"]) is not None:
        sentences.append(f"{row['kind']}: row {row['audit_id']}: {row['detail']}.")
    elif answer["rows"] is not None:
        sentences.append(f"{numbered(answer['rows'], 'row agrees', 'rows agree')} with the topic.")
    if answer["broken"] is None:
        sentences.append(f"The chain is complete. Keep its head elsewhere: {answer['head'] or 'there is none yet'}")
    return "\n".join(sentences)
