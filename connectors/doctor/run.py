"""Runs `meterbridge doctor`: examine, print the report, and return an exit code for scripts."""

import asyncio
import json
from pathlib import Path
from textwrap import indent

import typer

from connectors.config.settings import Settings
from connectors.doctor.catalogue import KINDS, Severity
from connectors.doctor.examination import ExaminationReport, examine
from connectors.lago.client import lago_http
from connectors.litellm.recommended import ENVIRONMENT, STOPPING
from connectors.telemetry.printable import shown

_TIMEOUT_S = 10.0
_CONNECTIONS = 4
_WORDS = {
    Severity.MONEY_LOST: "LOSES MONEY",
    Severity.MONEY_DOUBLED: "DOUBLES MONEY",
    Severity.DEGRADED: "degraded",
    Severity.OK: "ok",
}


def run_doctor(
    own: Settings, config: Path | None, url: str | None, *, principal: str, as_json: bool, with_lago: bool
) -> int:
    """Examine once. Returns the exit code: 0 = no finding loses or doubles money, 1 = a finding does, 2 = a part could
    not be read.

    Args:
        principal: how Kafka names the roles' accounts (`connectors.kafka.acls.principal_of`).

    Raises:
        ConfigurationError: `config` cannot be read.
    """

    async def once() -> ExaminationReport:
        async with lago_http(_TIMEOUT_S, _CONNECTIONS) as http:
            return await examine(own, http, config, url, principal=principal, with_lago=with_lago)

    report = asyncio.run(once())
    typer.echo(json.dumps(report.as_object(), indent=2) if as_json else shown(report_text(report), lines=True))
    return report.exit_code


def report_text(report: ExaminationReport) -> str:
    """Return the report as text: the findings. If LiteLLM's configuration differs from the recommended one, or is
    unknown, also the configuration, the environment and the order of stopping with the least loss.
    """
    lines = []
    for patient in report.patients:
        lines.append(patient.name)
        if patient.unread:
            lines.append(f"  NOT READ  {shown(patient.unread)}")
            lines.append(f"    do:  {patient.next_step}")
        elif not patient.findings:
            lines.append("  ok")
        for finding in sorted(patient.findings, key=lambda one: list(Severity).index(one.severity)):
            kind = KINDS[finding.code]
            lines.append(f"  {_WORDS[kind.severity]}  {finding.code}  {shown(finding.sentence)}")
            lines.append(f"    why: {kind.cause}")
            lines.append(f"    do:  {kind.fix}")
        lines.append("")
    if report.differs:
        lines += [*_recommended(report), ""]
    return "\n".join([*lines, *filter(None, [report.not_asked]), _last_line(report)])


def _recommended(report: ExaminationReport) -> list[str]:
    return [
        "LiteLLM's config.yaml, version 1.108 or later, that loses least:",
        "",
        indent(report.config, "  "),
        "The environment of LiteLLM's process, not its file:",
        "",
        *(f"  {name}={value}" for name, value in ENVIRONMENT.items()),
        "",
        "Stop LiteLLM in this order; any other loses the calls of the last seconds:",
        "",
        *(f"  {number}. {step}" for number, step in enumerate(STOPPING, 1)),
    ]


def _last_line(report: ExaminationReport) -> str:
    counts = {word: sum(f.severity is severity for f in report.findings) for severity, word in _WORDS.items()}
    counted = ", ".join(f"{count} {word}" for word, count in counts.items() if count and word != _WORDS[Severity.OK])
    unread = sum(bool(patient.unread) for patient in report.patients)
    return f"Findings: {counted or 'none'}." + (f" Not read: {unread}." if unread else "")
