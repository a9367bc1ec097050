"""Every reason and every command error in the code is on docs/errors.md."""

from pathlib import Path

from tests.support.pages import whole_page
from tests.support.reasons_of_code import calls, reasons, texts_of

ROOT = Path(__file__).parents[3]
PAGE = whole_page("errors.md")
SENTENCES = ("fail", "_fail")
#: Modules of connectors/cli whose command has another name, or that many commands use.
NAMED = {"running": "serve", "imports": "import"}
SHARED = {"running", "base", "sentences", "account_tables"}


def sentences() -> list[tuple[str, str]]:
    """Each sentence with a gap in place of the user's own word; a reason that is passed on is left out."""
    result = [(where, "...".join(texts_of(call.args[0]))) for where, call in calls(*SENTENCES)]
    return [(where, sentence) for where, sentence in result if sentence]


def test_the_code_has_enough_sentences_to_compare() -> None:
    assert len(reasons()) > 60
    assert len(sentences()) > 15


def test_every_reason_is_on_the_page() -> None:
    assert [(where, reason) for where, reason in reasons() if f"`{reason}`" not in PAGE] == []


def words_of(page: str) -> list[str]:
    """The texts in the first cells of the rows."""
    cells = [line.split("|")[1].replace("`", "") for line in page.splitlines() if line.startswith("|")]
    return [said for cell in cells for said in cell.strip().split(": ") if len(said) > 6]


def test_every_sentence_of_a_command_is_on_the_page() -> None:
    """The first cell of a row has words of the sentence."""
    result = words_of(PAGE)
    assert [one for one in sentences() if not any(said in one[1] for said in result)] == []


def test_every_error_of_a_command_is_below_a_heading_that_names_the_command() -> None:
    """Readers know which command they have typed."""
    text = (ROOT / "docs" / "errors-commands.md").read_text(encoding="utf-8")
    chapters = [chapter.partition("\n") for chapter in text.split("\n## ")[1:]]
    missing = []
    for where, sentence in sentences():
        module = Path(where.partition(":")[0]).stem
        name = f"`{NAMED.get(module, module).replace('_', '-')}`"
        result = [said for heading, _, rows in chapters if name in heading for said in words_of(rows)]
        if module not in SHARED and not any(said in sentence for said in result):
            missing.append((where, sentence))
    assert missing == []
