"""A part that the doctor could not read has a next step in the report."""

import pytest

from connectors.doctor.examination import ExaminationReport, ExaminedPart
from connectors.doctor.run import report_text


@pytest.mark.parametrize(
    ("unread", "step"),
    [
        ("litellm_unreachable: http://localhost:4000: ConnectError", "Start the proxy, correct --url"),
        ("LAGO_API_KEY is not set.", "Set LAGO_API_KEY, or leave Lago out"),
        ("Lago does not answer: connect: ConnectError.", "Start Lago, or correct LAGO_API_URL"),
        ("Lago does not answer: not_lago: HTTP 400.", "another server answers there"),
        ("kafka_unavailable: list topics: Timed out", "Start Kafka, or correct KAFKA_BOOTSTRAP_SERVERS"),
        ("postgres_schema: UndefinedTableError", "Run `meterbridge db migrate`."),
        ("postgres_away: ConnectionRefusedError", "Start Postgres, or correct DATABASE_URL."),
        ("something_new: a word", "docs/errors.md"),
    ],
)
def test_the_report_says_what_to_do_about_a_part_that_was_not_read(unread: str, step: str) -> None:
    report = ExaminationReport((ExaminedPart("Part", unread=unread),), "", differs=False)
    lines = report_text(report).splitlines()
    left_out = ExaminationReport((), "", differs=False, not_asked="Kafka was not examined.")
    assert report_text(left_out).splitlines() == ["Kafka was not examined.", "Findings: none."]
    assert lines[1] == f"  NOT READ  {unread}"
    assert lines[2].startswith("    do:  ") and step in lines[2]
    assert step in report.as_object()["unread"][0]["do"]
