"""Where an array or an object ends, in text that no JSON parser takes: brackets are counted, texts are jumped over.

The first brackets are counted one by one. Whatever has more is counted in pieces by what is written in C, for a step for
each bracket takes a second a megabyte.
"""

from array import array
from itertools import accumulate, islice
from re import DOTALL, Pattern
from re import compile as re_compile
from typing import Final

from connectors.ingest.rejection_record import InvalidElement
from schemas.reasons import NOT_JSON

TEXT: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'

_TO_BRACKET = re_compile(rb'[^"\[\]{}]*+(?:' + TEXT + rb'[^"\[\]{}]*+)*+', DOTALL)
_WHOLE_TEXTS = re_compile(rb'(?:[^"]++|' + TEXT + rb")*+", DOTALL)
_A_TEXT = re_compile(TEXT, DOTALL)
#: From the end of one bracket to that of the next.
_NEXT_BRACKET = re_compile(rb'(?:[^"\[\]{}]++|' + TEXT + rb")*+[\[\]{}]", DOTALL)
_OPENING: Final = (b"[", b"{")
_BRACKETS: Final = b"[]{}"
_NO_BRACKETS: Final = bytes(set(range(256)) - set(_BRACKETS))
_CLOSES: Final = 255
#: As signed bytes: 1 for each that opens, -1 for each that closes.
_AS_STEPS: Final = bytes.maketrans(_BRACKETS, bytes([1, _CLOSES, 1, _CLOSES]))
_ONE_BY_ONE: Final = 8
_FIRST_PIECE, _LARGEST_PIECE = 256, 256 << 10


def end_of_nested(view: memoryview, at: int) -> int:
    """Just after the bracket that closes what was opened just before `at`.

    Raises:
        Refused: `not_json`: there is none.
    """
    depth = 1
    for _ in range(_ONE_BY_ONE):
        at = _end(_TO_BRACKET, view, at, len(view))
        sign = bytes(view[at : at + 1])
        if sign in (b"", b'"'):  # the end, or a text that does not end
            raise InvalidElement(NOT_JSON, "ends inside an element", offset=at)
        depth += 1 if sign in _OPENING else -1
        at += 1
        if not depth:
            return at
    size = _FIRST_PIECE
    while True:
        stop = _end(_WHOLE_TEXTS, view, at, at + size)
        if stop == at:  # a text that is longer than the piece, or nothing is left
            if (text := _A_TEXT.match(view, at)) is None:
                raise InvalidElement(NOT_JSON, "ends inside an element", offset=at)
            at = text.end()
            continue
        steps = _A_TEXT.sub(b"", bytes(view[at:stop])).translate(_AS_STEPS, _NO_BRACKETS)
        closing = steps.count(_CLOSES)
        if closing < depth:
            depth += len(steps) - 2 * closing
        else:
            depths = array("i", accumulate(array("b", steps), initial=depth))
            if 0 in depths:
                return next(islice(_NEXT_BRACKET.finditer(view, at, stop), depths.index(0) - 1, None)).end()
            depth = depths[-1]
        at, size = stop, min(2 * size, _LARGEST_PIECE)


def _end(pattern: Pattern[bytes], view: memoryview, at: int, stop: int) -> int:
    """Where a pattern that also matches nothing stops."""
    return found.end() if (found := pattern.match(view, at, stop)) else at
