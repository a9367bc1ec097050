"""One way to read a stored record: any damage raises one error, `Unreadable`.

msgspec raises `DecodeError` for most damage, but `RecursionError` for deep JSON, `UnicodeDecodeError` for a broken
byte, and `TypeError` for a missing value. A reader that catches only the first would stop forever at a record that
raises one of the others.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from schemas.ranges import CHECKS

T = TypeVar("T")
#: The errors that a damaged record raises when it is decoded or converted to a row.
DAMAGE: Final = (
    *(msgspec.MsgspecError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError),
)

#: The errors that msgspec raises for bytes that are no JSON, or of another type. Code that reads input from outside
#: uses `decoder` or catches these, because `DecodeError` does not cover broken bytes and deep nesting.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Unreadable(msgspec.DecodeError):
    """A stored record cannot be read. It is counted, logged once, stored separately if it holds money, and skipped."""


def decoder(
    of: type[T], check: Callable[[T], object] | None = None, *, packed: bool = False
) -> Callable[[bytes | str | memoryview | msgspec.Raw | None], T]:
    """Make a function that reads a stored value as `of`.

    Args:
        check: raises for a value that has the right types and must not be stored; None = the check in
            `schemas.ranges.CHECKS` for the type.
        packed: MessagePack instead of JSON.

    Returns:
        A function of the value (None = a record without one). It raises only `Unreadable`, without any part of the
            value in the text.
    """
    check = CHECKS.get(of) if check is None else check
    decode = msgspec.msgpack.Decoder(of).decode if packed else msgspec.json.Decoder(of).decode

    def read(value: bytes | str | memoryview | msgspec.Raw | None) -> T:
        try:
            decoded = decode(value)  # type: ignore[arg-type]  # None raises TypeError
            if check is not None:
                check(decoded)
        except DAMAGE as error:
            raise Unreadable(type(error).__name__) from None
        return decoded

    return read
