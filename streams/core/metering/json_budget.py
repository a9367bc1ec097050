"""Limits how much of a JSON text the tolerant reader may build, because one byte of JSON can need fifty bytes in
memory; pure.

Brackets, commas and texts are counted without building objects.
"""

from re import DOTALL
from re import compile as re_compile
from typing import Final

#: The most signs (brackets, commas and texts) of one element. A StandardLoggingPayload has about 300; with a
#: conversation of a thousand messages it has about 15,000.
MAX_SIGNS: Final = 200_000
#: The most signs of all elements of one body that the tolerant reader reads.
MAX_SIGNS_OF_BODY: Final = 4_000_000
#: The most signs of JSON inside a text.
MAX_SIGNS_OF_TEXT: Final = 20_000

#: A text without an end counts as one sign, because repeated searches for its end would take quadratic time.
_SIGN = re_compile(rb'[\[{,]|"[^"\\]*+(?:\\.[^"\\]*+|(?!))*+(?:"|\\?\Z)', DOTALL)


class Budget:
    """The number of signs that may still be built for one body."""

    __slots__ = ("left",)

    def __init__(self, signs: int = MAX_SIGNS_OF_BODY) -> None:
        self.left = signs

    def takes(self, element: bytes) -> bool:
        """Decide whether the element may be read, and deduct its signs. The check takes at most 0.1 s."""
        most = element.count(b",") + element.count(b"[") + element.count(b"{") + element.count(b'"')
        bound = min(MAX_SIGNS, self.left)
        signs = most if most <= bound else _signs(element, bound)
        if signs > bound:
            return False
        self.left -= signs
        return True


def may_be_read(text: str) -> bool:
    """Return whether JSON inside a text may be read."""
    return text.count(",") + text.count("[") + text.count("{") <= MAX_SIGNS_OF_TEXT


def _signs(element: bytes, bound: int) -> int:
    """Return the number of signs; counting stops above `bound`."""
    count = 0
    for count, _ in enumerate(_SIGN.finditer(element), 1):  # the last count is the answer
        if count > bound:
            break
    return count
