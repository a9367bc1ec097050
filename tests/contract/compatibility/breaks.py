"""What an incompatible change is, and how the changelog accepts it: by a line in its list of breaking changes."""

import re
from pathlib import Path
from typing import Any, Final, NamedTuple

Json = dict[str, Any]
CHANGELOG: Final = Path(__file__).parents[3] / "CHANGELOG.md"
_VERSION = re.compile(r"^## \[", re.MULTILINE)
_HOW = (
    "Keep it as it was, beside the new one if there is one, and announce its end as deprecated; or accept the break: below "
    '"### Breaking" of the newest version in CHANGELOG.md a line that begins with "- `{subject}`:" and says what a user has to do.'
)


class Break(NamedTuple):
    """One incompatible change.

    Fields:
        subject: names what changed, as a line of CHANGELOG.md names it: `settings LOG_LEVEL`.
        what: the change.
        effect: what it breaks, and for whom.
        instead: a way to make the change compatible, beyond the general ones; `""` = none.
    """

    subject: str
    what: str
    effect: str
    instead: str = ""

    def sentence(self) -> str:
        """The change, whom it breaks, and what to do about it."""
        how = " ".join(filter(None, (self.instead, _HOW.format(subject=self.subject))))
        return f"{self.subject}: {self.what}. {self.effect} {how}"


def accepted(changelog: str) -> frozenset[str]:
    """The subjects in the list "Breaking" of the newest version in a changelog's text."""
    newest = _VERSION.split(changelog)[1]
    listed = newest.partition("### Breaking\n")[2].partition("\n#")[0]
    return frozenset(re.findall(r"^- `([^`]+)`: .{10}", listed, re.MULTILINE))


def open_breaks(breaks: list[Break], changelog: str) -> list[Break]:
    """The breaks that the changelog does not accept."""
    known = accepted(changelog)
    return [one for one in breaks if one.subject not in known]
