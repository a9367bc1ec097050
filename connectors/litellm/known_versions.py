"""The known facts about versions of LiteLLM. Some versions were tested with every kind of call, and represent similar
versions.

`known_versions.json` beside this file is written by `python -m tests.litellm_matrix --write`, from the recorded results that
docs/litellm-versions.md shows.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import msgspec

Numbers = tuple[int, ...]


class TriedVersion(msgspec.Struct, frozen=True):
    """A version that was tried.

    Fields:
        kinds: the number of kinds of calls that could be tried.
        less: kinds of calls that are billed at less than the owed amount, described in words, by the name of the
            scenario.
        more: the same for calls that are billed at more than the owed amount.
    """

    kinds: int
    less: Mapping[str, str]
    more: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """The known facts about a version.

    Fields:
        version: the requested version.
        is_tried: it was tried itself.
        like: tried versions that represent it: itself, the version of its release line (1.110), or the versions before
            and after it.
    """

    version: str
    is_tried: bool
    like: tuple[str, ...]

    @property
    def less(self) -> dict[str, str]:
        """Kinds of calls that all versions in `like` bill at less than the owed amount."""
        return _common([tried()[name].less for name in self.like])

    @property
    def more(self) -> dict[str, str]:
        """Kinds of calls that all versions in `like` bill at more than the owed amount."""
        return _common([tried()[name].more for name in self.like])


@cache
def tried() -> dict[str, TriedVersion]:
    """Return the versions that were tried, the oldest first."""
    text = files("connectors.litellm").joinpath("known_versions.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, TriedVersion])


def newest() -> str:
    """Return the newest version that was tried."""
    return [*tried()][-1]


def numbers(version: str) -> Numbers:
    """Return the numbers that a version begins with: (1, 110, 2) of `1.110.2rc1`; empty if it begins with none."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def known_of(version: str) -> KnownVersion | None:
    """Return the known facts about a version; None = the text is not a version."""
    asked = numbers(version)
    if len(asked) < 2:  # 1.110
        return None
    if version in tried():
        return KnownVersion(version, True, (version,))
    line = tuple(name for name in tried() if numbers(name)[:2] == asked[:2])
    if line:
        return KnownVersion(version, False, line)
    before = [name for name in tried() if numbers(name) < asked][-1:]
    after = [name for name in tried() if numbers(name) > asked][:1]
    return KnownVersion(version, False, (*before, *after))


def _common(each: list[Mapping[str, str]]) -> dict[str, str]:
    first, *others = each
    return {name: words for name, words in first.items() if all(name in other for other in others)}
