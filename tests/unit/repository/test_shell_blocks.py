"""Each shell block on a page is run by a test, or a comment says why not."""

import re
from pathlib import Path

import pytest

from tests.support.page_shell import PAGES, ROOT, RUNBOOKS, TUTORIAL, blocks, prints_as_documented

#: A page whose blocks a test of its own runs.
ELSEWHERE = {
    "docs/alarms.md": "tests/deploy/page.py",
    "docs/api.md": "tests/contract/test_api_page.py",
    "docs/disaster-recovery.md": "tests/faults/test_disaster_recovery.py",
    "docs/kafka.md": "tests/e2e/test_kafka_page.py",
    "docs/key-rotation.md": "tests/e2e/test_key_rotation.py",
    "docs/kubernetes.md": "tests/chart/page_checks.py",
    "docs/moving.md": "tests/faults/test_moving.py",
    "docs/tutorial-compose.md": "tests/deploy/page.py",
}
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *RUNBOOKS]
#: What needs Docker, the network, hours, or a program that is not ours. A block more needs a reason to be here.
MOST_NOT_RUN = 12
#: What a shell does not read as words of its own: the text of a here-document, and what is quoted.
_DOCUMENT = re.compile(r"<<'?(\w+)'?[^\n]*\n.*?^ *\1$", re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
#: What bash takes and zsh, the shell of macOS, does not when it is typed or pasted, and why.
NOT_IN_ZSH = {
    r"(?:^|\s)#": "the sign # begins no comment in an interactive zsh",
    r"\bjobs -p\b": "in zsh `jobs -p` prints whole lines, and nothing at all within $(...)",
    r"[?*\[]": "zsh ends with `no matches found` where a pattern fits no file",
}
FENCE = re.compile(r"^ *```(\S*)$", re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_every_block_says_its_language(page: Path) -> None:
    """Otherwise a block of commands would not be run."""
    fences = FENCE.findall(page.read_text(encoding="utf-8"))
    assert len(fences) % 2 == 0
    assert all(fences[::2]), f"block {fences[::2].index('') + 1} of {named(page)}"
    assert not any(fences[1::2])


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_every_shell_block_is_run_or_says_why_not(page: Path) -> None:
    found = list(blocks(page))
    assert len(found) == len(re.findall(r"^ *```(?:sh|bash)$", page.read_text(encoding="utf-8"), re.MULTILINE))
    for block in found:
        if block.how == "not run":
            assert len(block.why) > 10, block.place
        else:
            assert named(page) in {*PAGES, *map(named, RUNBOOKS), TUTORIAL, *ELSEWHERE}, (
                f"{block.place} is run by no test"
            )
            assert block.how == "" or block.prints, f"{block.place} is repeated until what?"
    assert named(page) not in ELSEWHERE or (ROOT / ELSEWHERE[named(page)]).exists()


def words_of(text: str) -> str:
    return _QUOTED.sub("_", _DOCUMENT.sub("_", text))


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_a_block_means_the_same_in_bash_and_in_zsh(page: Path) -> None:
    for block in blocks(page):
        for pattern, why in NOT_IN_ZSH.items():
            found = re.search(pattern, words_of(block.text), re.MULTILINE)
            assert not found, f"{block.place}: {found and found[0]!r}: {why}"


def test_quotes_and_here_documents_are_not_read_as_shell_words() -> None:
    text = 'cat > a.yaml <<\'YAML\'\na: 1  # one\nYAML\ncurl "$API/x?y=[1]" -d \'{"#": "*"}\' # said\n'
    assert words_of(text).split() == ["cat", ">", "a.yaml", "_", "curl", "_", "-d", "_", "#", "said"]


def test_the_readmes_docker_commands_are_those_that_the_tutorial_runs() -> None:
    (own,) = (block for block in blocks(ROOT / "README.md") if block.chapter == "Start it with Docker Compose")
    lines = [line for block in blocks(ROOT / "docs" / "tutorial-compose.md") for line in block.text.splitlines()]
    assert set(own.text.splitlines()) <= set(lines)


#: A question to the management API or to Lago; what of them is open to all.
ASKED, OPEN = re.compile(r"curl [^|]*\$\{?(?:API|LAGO_API_URL)\b[^|`]*"), re.compile(r"/(?:health|metrics/prometheus)")


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_a_request_that_needs_a_credential_has_one(page: Path) -> None:
    """Also within a line: the first command of an alarm is typed by a person who was asleep."""
    inline = re.findall(r"`(curl [^`]+)`", page.read_text(encoding="utf-8"))
    typed = [line for block in blocks(page) for line in block.text.replace("\\\n", " ").splitlines()]
    for command in (*inline, *typed):
        for asked in ASKED.findall(command):
            assert "Authorization: Bearer" in asked or OPEN.search(asked), asked


def test_few_blocks_are_not_run() -> None:
    unrun = [block.place for page in DOCUMENTS for block in blocks(page) if block.how == "not run"]
    assert len(unrun) <= MOST_NOT_RUN, unrun
    assert sum(1 for page in DOCUMENTS for _ in blocks(page)) > 5 * len(unrun)


def test_a_test_that_a_reason_names_exists() -> None:
    for page in DOCUMENTS:
        for block in blocks(page):
            for test in re.findall(r"tests/\S+\.py", block.why):
                assert (ROOT / test).exists(), block.place


def test_output_is_compared_by_words_in_their_order() -> None:
    assert prints_as_documented("3 made.\n...\nplan b", "3 made.\nplan a\nplan b\n")
    assert prints_as_documented('{"a":1}\n{"b":2}', '{"a":1}{"b":2}')
    assert not prints_as_documented("3 made.", "13 made.")
    assert not prints_as_documented("plan b ... plan a", "plan a\nplan b\n")
    assert not prints_as_documented("0.0123 USD", "0.0124 USD")
