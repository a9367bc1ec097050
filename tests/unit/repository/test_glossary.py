"""Each word of the glossary is used: in the code, or on another page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
WORDS = [word for word in re.findall(r"^\| ([^|]+) \|", GLOSSARY, re.MULTILINE) if word != "word"]
CODE = "\n".join(
    file.read_text() for room in ("connectors", "streams", "schemas") for file in (ROOT / room).rglob("*.py")
)
PAGES = "\n".join(page.read_text() for page in (ROOT / "docs").glob("*.md") if page.name != "glossary.md")


def _used(word: str, text: str) -> bool:
    """The word, one of its forms, or a name that contains it."""
    stem = r"[a-z]*[ _]".join(re.escape(part.removesuffix("e")) for part in word.split())
    return re.search(rf"(?<![a-z]){stem}", text, re.IGNORECASE) is not None


def test_the_glossary_has_words_without_duplicates() -> None:
    assert len(WORDS) > 20
    assert len(WORDS) == len(set(WORDS))


@pytest.mark.parametrize("word", WORDS)
def test_each_word_of_the_glossary_is_used(word: str) -> None:
    assert _used(word, CODE) or _used(word, PAGES), f"{word} is in the glossary, and neither in the code nor on a page"


def test_an_unused_word_is_reported() -> None:
    assert not _used("follower of followers", CODE)
