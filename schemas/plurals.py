"""Numbers with their nouns, for sentences that people read: `1 call`, `2 calls`."""


def numbered(count: int, one: str, many: str = "") -> str:
    """A number and its noun.

    Args:
        one: the noun of one, e.g. `delivery`, or a noun with its verb, e.g. `call was`.
        many: the noun of all other numbers; `""` = `one` with the plural's ending of its last word.
    """
    return f"{count} {one}" if count == 1 else f"{count} {many or _plural(one)}"


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
