"""Pages of docs/ that have several files, read as one: a table in a page names its parts."""

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

#: The page, and the files that hold its other chapters.
PARTS = {
    "coverage.md": [
        f"coverage/{part}.md" for part in ("api", "commands", "settings", "functions", "tables", "metrics", "contracts")
    ],
    "errors.md": ["errors-commands.md", "errors-api.md"],
    "sdk.md": ["sdk-reference.md"],
    "database.md": ["database-questions.md"],
}


def whole_page(name: str) -> str:
    """Return the text of a page and of its parts, one after the other."""
    return "\n".join((DOCS / one).read_text(encoding="utf-8") for one in (name, *PARTS[name]))
