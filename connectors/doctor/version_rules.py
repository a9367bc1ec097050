"""Reports the known facts about a proxy's version of LiteLLM; pure."""

from collections.abc import Iterable, Iterator, Mapping

from connectors.doctor.catalogue import Finding
from connectors.litellm.known_versions import KnownVersion, known_of, newest, numbers, tried


def judge_version(version: str | None) -> Iterator[Finding]:
    """Yield the findings about a version; no findings if the version is not visible."""
    known = known_of(version or "")
    if known is None:
        return
    best = tried()[newest()]
    less, more = _beyond(known.less, best.less), _beyond(known.more, best.more)
    reports = f"LiteLLM {' and '.join(known.like)} {'report' if len(known.like) > 1 else 'reports'}"
    if less:
        yield Finding("version_loses", f"{reports} less than is owed of: {_listed(less)}. {newest()} does not.")
    if more:
        yield Finding("version_exceeds", f"{reports} more than is owed of: {_listed(more)}. {newest()} does not.")
    if not known.is_tried:
        yield Finding("version_unknown", f"LiteLLM {known.version} was not tried; {_place(known)}.")
    else:
        yield Finding("version_known", _summary(known))


def _summary(known: KnownVersion) -> str:
    one = tried()[known.version]
    wrong = len({*one.less, *one.more})
    sentence = (
        f"LiteLLM {known.version} was tried with {one.kinds} kinds of calls: {one.kinds - wrong} are billed as owed"
    )
    return f"{sentence}; not: {_listed([*one.less.values(), *one.more.values()])}." if wrong else f"{sentence}."


def _place(known: KnownVersion) -> str:
    if len(known.like) > 1:
        return f"{known.like[0]} before it and {known.like[1]} after it were"
    like = known.like[0]
    if numbers(like)[:2] == numbers(known.version)[:2]:
        return f"{like}, of the same release line, was"
    return f"it is {'newer' if numbers(known.version) > numbers(like) else 'older'} than {like}, the {'newest' if like == newest() else 'oldest'} that was"


def _beyond(found: Mapping[str, str], best: Mapping[str, str]) -> list[str]:
    """Say which problems the newest tested version does not have."""
    return [words for name, words in found.items() if name not in best]


def _listed(words: Iterable[str]) -> str:
    return "; ".join(words)
