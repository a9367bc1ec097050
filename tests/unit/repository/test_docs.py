"""Documents refer to existing things: links, files named in code, and the tests in docs/coverage.md."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from connectors.api.dead_letters import RetryBody
from connectors.billing.lago_webhooks import WebhookHandlers
from connectors.config.settings import VARIABLES
from connectors.demo.view import NEXT_EXACT
from connectors.library import orgs
from tests.support.pages import whole_page

ROOT = Path(__file__).parents[3]
THREATS = ROOT / "docs" / "threat-model.md"


def files(pattern: str) -> list[Path]:
    """Our files: none below a folder that begins with a dot, for example a virtual environment."""
    found = (path for path in sorted(ROOT.rglob(pattern)) if path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]


PAGES = files("*.md")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
NAMED_PAGE = re.compile(r"\bdocs/[\w./-]+\.md\b")
#: `file`, `file::test`; a file may have stars in it.
CLAIM = re.compile(r"`((?:unit|contract|integration|e2e|faults|fuzz|ui|alarms)/[\w*/]+\.py)(?:::(?:Test\w+::)?(\w+))?`")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def links(page: Path) -> list[str]:
    """Targets of the page's links that lead to files."""
    targets = LINK.findall(FENCED.sub("", page.read_text()))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchor of every heading, as GitHub creates it."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings)


@cache
def laws_of(path: Path) -> frozenset[str]:
    """Names of the tests in a file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def coverage_rows() -> list[str]:
    """Return the rows of all parts of the page; the page itself has only the list of its parts."""
    text = whole_page("coverage.md").partition("\n# Coverage: ")[2]
    return [line for line in text.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_has_a_target(page: Path) -> None:
    for target in links(page):
        place, _, anchor = target.partition("#")
        leads_to = (page.parent / place).resolve() if place else page
        assert leads_to.exists(), target
        assert leads_to.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(leads_to), target


def test_every_page_that_is_mentioned_exists() -> None:
    """In code, settings, charts and other pages: a reader of the name looks for the page."""
    readers = [*files("*.py"), *files("*.md"), *files("*.yml"), *files("*.yaml"), *files("*.toml"), *files("*.sql")]
    for reader in readers:
        for name in NAMED_PAGE.findall(reader.read_text()):
            assert (ROOT / name).exists(), f"{named(reader)} names {name}"


def test_every_page_is_reachable_from_the_readme() -> None:
    seen, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = [(page.parent / target.partition("#")[0]).resolve() for target in links(page)]
        waiting += [target for target in targets if target.suffix == ".md"]
        waiting += [one for target in targets if target.is_dir() for one in target.glob("*.md")]
    assert {named(page) for page in PAGES} - {named(page) for page in seen} == set()


def test_every_threat_has_its_countermeasure_and_the_test_that_shows_it() -> None:
    """Rows of three cells, below the table of actors."""
    chapters = THREATS.read_text().partition("## A stranger")[2].partition("## Not met")[0].split("\n## ")
    for chapter in chapters:
        rows = [line for line in chapter.splitlines() if line.startswith("| ")][1:]
        assert rows, chapter
        for row in rows:
            result = [cell.strip() for cell in row.strip("|").split(" | ")]
            assert len(result) == 3 and all(result), row
            assert CLAIM.search(result[2]), row


def test_every_claimed_test_exists() -> None:
    """A rule without its test is no longer verified."""
    claims = CLAIM.findall(whole_page("coverage.md") + THREATS.read_text())
    assert len(claims) > 50
    for pattern, test in claims:
        found = sorted((ROOT / "tests").glob(pattern))
        assert found, pattern
        assert not test or test in laws_of(found[0]), f"{pattern}::{test}"


def test_an_open_row_names_no_test() -> None:
    """A row says `open`, or names its tests; a part of it says so for itself: `bill: open`."""
    for row in coverage_rows():
        for part in row.strip("| ").split("|")[-1].split(";"):
            is_open = re.search(r"\bopen\b", CLAIM.sub("", part)) is not None
            assert not (is_open and CLAIM.search(part)), row


def test_every_row_names_a_test_or_is_open() -> None:
    for row in coverage_rows():
        cell = row.strip("| ").split("|")[-1].strip()
        if cell not in {"test", "---"}:
            assert CLAIM.search(cell) or cell.startswith(("open", "needs docker", "Lago's own")), row


def named_in(chapter: str) -> frozenset[str]:
    """What the first column of a chapter of docs/coverage.md names, without arguments."""
    _, _, rest = whole_page("coverage.md").partition(f"\n## {chapter}\n")
    own = rest.partition("\n## ")[0]
    first_cells = [row.split("|")[1] for row in own.splitlines() if row.startswith("| ")]
    return frozenset(name for cell in first_cells for name in re.findall(r"`(\w+)", cell))


def test_every_variable_has_a_row() -> None:
    """All variables: docs/configuration.md is generated from the same table."""
    assert VARIABLES.keys() - named_in("Variables") == set()


def test_every_public_function_has_a_row() -> None:
    others = {"serve_with", "LimitReached"}  # how the functions are set up, and an error of theirs
    handlers = {name for name in vars(WebhookHandlers) if name.startswith("handle_")}
    assert ({*orgs.__all__} - others | handlers) - named_in("Functions") == set()


def test_the_last_lines_of_the_demo_name_existing_pages_and_headings() -> None:
    [said] = (sentence for sentence in NEXT_EXACT if sentence.startswith("Next"))
    pages, headings = re.findall(r"[\w./]+\.md", said), re.findall(r"(\S+\.md), \*([^*]+)\*", said)
    assert pages
    assert headings
    assert [page for page in pages if not (ROOT / page).is_file()] == []
    for page, heading in headings:
        assert re.search(rf"^#+ {re.escape(heading)}$", (ROOT / page).read_text(), re.MULTILINE), said


def test_the_retry_fields_on_the_page_are_those_that_the_code_takes() -> None:
    page = (ROOT / "docs" / "stuck-usage.md").read_text()
    _, _, rest = page.partition("- `POST /webhooks/retry`")
    assert set(re.findall(r"`(\w+)`", rest.partition(", all optional")[0])) == set(RetryBody.model_fields)


#: A command that gives up money, as it is to be typed: with an option.
GIVING_UP = re.compile(r"`meterbridge ((?:dlq dismiss|held write-off) --(?!help)[^`]*)`")


def test_a_command_that_gives_up_money_is_written_with_its_comment() -> None:
    """On pages, in messages and in alarms. Without `--comment` the command is refused."""
    written = {
        f"{named(file)}: {command}"
        for file in (*PAGES, *files("*.py"), *files("*.toml"), *files("*.yml"))
        for command in GIVING_UP.findall(file.read_text())
    }
    assert len(written) > 10
    assert [command for command in sorted(written) if "--comment" not in command] == []


#: Words that a page does not use, and the word of docs/glossary.md that it uses.
OLD_WORDS = {
    r"horizons?": "dedupe retention",
    r"lanes?": "partition task",
    r"purges?": "dismiss",
    r"the lead": "mapping delay",
    r"(?:the|no|a) books": "ledger, conservation",
}


USING = [page for page in (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md") if page.name != "glossary.md"]


@pytest.mark.parametrize("page", USING, ids=named)
def test_a_page_uses_the_words_of_the_glossary(page: Path) -> None:
    text = page.read_text()
    for old, new in OLD_WORDS.items():
        found = re.search(rf"\b{old}\b", text)
        assert not found, f"{found and found[0]}: the word is {new}"


def test_the_list_of_decisions_has_each_one_with_its_title() -> None:
    folder = ROOT / "docs" / "adr"
    rows = []
    for file in sorted(folder.glob("0*.md")):
        number, title = file.read_text("utf-8").partition("\n")[0].removeprefix("# ").split(" ", 1)
        rows.append(f"| {number} | [{title}]({file.name}) |")
    assert [line for line in (folder / "README.md").read_text("utf-8").splitlines() if line.startswith("| 0")] == rows
