"""How much of a JSON text a tolerant reader may build: what it builds of a byte may take fifty in memory.

Pure. Brackets, commas and texts are counted, and nothing is built.
"""

from re import DOTALL
from re import compile as re_compile
from typing import Final

#: Of one element. A StandardLoggingPayload has about 300, one with a conversation of a thousand messages about 15,000.
MAX_SIGNS: Final = 200_000
#: Of all elements of one body that are read by the tolerant reader.
MAX_SIGNS_OF_BODY: Final = 4_000_000
#: Of JSON in a text.
MAX_SIGNS_OF_TEXT: Final = 20_000

#: A text that does not end is one sign: to look for its end again and again would take the square of its length.
_SIGN = re_compile(rb'[\[{,]|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', DOTALL)


class Budget:
    """What may be built for one body."""

    __slots__ = ("left",)

    def __init__(self, signs: int = MAX_SIGNS_OF_BODY) -> None:
        self.left = signs

    def takes(self, element: bytes) -> bool:
        """Whether the element may be read; then it is paid for. It takes at most 0.1 s to tell."""
        most = element.count(b",") + element.count(b"[") + element.count(b"{") + element.count(b'"')
        bound = min(MAX_SIGNS, self.left)
        signs = most if most <= bound else _signs(element, bound)
        if signs > bound:
            return False
        self.left -= signs
        return True


def may_be_read(text: str) -> bool:
    """Whether JSON in a text may be read."""
    return text.count(",") + text.count("[") + text.count("{") <= MAX_SIGNS_OF_TEXT


def _signs(element: bytes, bound: int) -> int:
    """How many there are; counted no further than `bound`."""
    count = 0
    for count, _ in enumerate(_SIGN.finditer(element), 1):  # the last count is the answer
        if count > bound:
            break
    return count
