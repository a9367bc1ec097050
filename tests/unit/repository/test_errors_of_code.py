"""Every reason the code can give and every sentence a command can end with stands in docs/errors.md."""

from pathlib import Path

from tests.support.pages import whole_page
from tests.support.reasons_of_code import calls, reasons, texts_of

ROOT = Path(__file__).parents[3]
PAGE = whole_page("errors.md")
SENTENCES = ("fail", "_fail")


def sentences() -> list[tuple[str, str]]:
    """Each sentence with a gap where the user's own word stands; what is handed on is a reason."""
    told = [(where, "...".join(texts_of(call.args[0]))) for where, call in calls(*SENTENCES)]
    return [(where, sentence) for where, sentence in told if sentence]


def test_there_is_much_to_compare() -> None:
    assert len(reasons()) > 60
    assert len(sentences()) > 15


def test_every_reason_is_on_the_page() -> None:
    assert [(where, reason) for where, reason in reasons() if f"`{reason}`" not in PAGE] == []


def test_every_sentence_of_a_command_is_on_the_page() -> None:
    """A row's first cell holds words of the sentence."""
    cells = [line.split("|")[1].replace("`", "") for line in PAGE.splitlines() if line.startswith("|")]
    told = [said for cell in cells for said in cell.strip().split(": ") if len(said) > 6]
    assert [one for one in sentences() if not any(said in one[1] for said in told)] == []
