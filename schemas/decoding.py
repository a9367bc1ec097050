"""One way to read a stored record: whatever is wrong with it is one error, `Unreadable`.

msgspec alone raises `DecodeError` for most damage, but `RecursionError` for deep JSON, `UnicodeDecodeError` for a broken
byte, `TypeError` for no value at all. A reader that catches the first only is stopped for ever by the others.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from schemas.ranges import CHECKS

T = TypeVar("T")
#: What damage in a record raises where it is read, decoded or made a row of, whatever it is called there.
DAMAGE: Final = (
    *(msgspec.MsgspecError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError),
)

#: What msgspec raises for bytes that are no JSON, or are of another type. What it is given from outside is read by
#: `decoder`, or caught with these: `DecodeError` alone lets a broken byte and deep nesting through.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Unreadable(msgspec.DecodeError):
    """A record is none of ours: it is counted, said once, kept aside where money is in it, and passed."""


def decoder(
    of: type[T], check: Callable[[T], object] | None = None, *, packed: bool = False
) -> Callable[[bytes | str | memoryview | msgspec.Raw | None], T]:
    """What reads a stored value as `of`.

    Args:
        check: raises where a value is sound by its types and nothing that may be stored; None = what
            `schemas.ranges.CHECKS` has for the type.
        packed: MessagePack instead of JSON.

    Returns:
        A function of the value (None = a record without one) that raises `Unreadable` alone, with no part of the value in
        its text.
    """
    check = CHECKS.get(of) if check is None else check
    decode = msgspec.msgpack.Decoder(of).decode if packed else msgspec.json.Decoder(of).decode

    def read(value: bytes | str | memoryview | msgspec.Raw | None) -> T:
        try:
            found = decode(value)  # type: ignore[arg-type]  # None raises TypeError
            if check is not None:
                check(found)
        except DAMAGE as error:
            raise Unreadable(type(error).__name__) from None
        return found

    return read
