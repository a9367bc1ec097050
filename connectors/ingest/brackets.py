"""Finds the end of an array or object that no JSON parser accepts, by counting brackets and skipping strings.

The first brackets are counted one by one. After them, larger and larger pieces are counted by functions in C, because a step
in Python per bracket takes a second per megabyte.
"""

from array import array
from itertools import accumulate, islice
from re import DOTALL, Pattern
from re import compile as re_compile
from typing import Final

from connectors.ingest.rejection_record import InvalidElement
from schemas.reasons import NOT_JSON

# `|(?!)` never matches. Python before 3.11.5 continues behind a possessive group where its last, incomplete repetition gave up
# (https://github.com/python/cpython/issues/106052); an alternative that fails at once takes it back to the end of the one before.
TEXT: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+|(?!))*+"'

_TO_BRACKET = re_compile(rb'[^"\[\]{}]*+(?:' + TEXT + rb'[^"\[\]{}]*+|(?!))*+', DOTALL)
_WHOLE_TEXTS = re_compile(rb'(?:[^"]++|' + TEXT + rb"|(?!))*+", DOTALL)
_A_TEXT = re_compile(TEXT, DOTALL)
#: From the end of one bracket to the end of the next.
_NEXT_BRACKET = re_compile(rb'(?:[^"\[\]{}]++|' + TEXT + rb"|(?!))*+[\[\]{}]", DOTALL)
_OPENING: Final = (b"[", b"{")
_BRACKETS: Final = b"[]{}"
_NO_BRACKETS: Final = bytes(set(range(256)) - set(_BRACKETS))
_CLOSES: Final = 255
#: Brackets as signed bytes: 1 for an opening one, -1 for a closing one.
_AS_STEPS: Final = bytes.maketrans(_BRACKETS, bytes([1, _CLOSES, 1, _CLOSES]))
_ONE_BY_ONE: Final = 8
_FIRST_PIECE, _LARGEST_PIECE = 256, 256 << 10


def end_of_nested(view: memoryview, at: int) -> int:
    """Return the position behind the bracket that closes the one before `at`.

    Raises:
        InvalidElement: `not_json`: no bracket closes it.
    """
    depth = 1
    for _ in range(_ONE_BY_ONE):
        at = _end(_TO_BRACKET, view, at, len(view))
        sign = bytes(view[at : at + 1])
        if sign in (b"", b'"'):  # the end of the text, or a string that does not end
            raise InvalidElement(NOT_JSON, "the body ends inside an element", offset=at)
        depth += 1 if sign in _OPENING else -1
        at += 1
        if not depth:
            return at
    size = _FIRST_PIECE
    while True:
        stop = _end(_WHOLE_TEXTS, view, at, at + size)
        if stop == at:  # a string that is longer than the piece, or the end
            if (text := _A_TEXT.match(view, at)) is None:
                raise InvalidElement(NOT_JSON, "the body ends inside an element", offset=at)
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


def end_of(pattern: Pattern[bytes], view: memoryview, at: int) -> int:
    """Return where the match of `pattern` at `at` ends; the pattern also matches the empty string."""
    return _end(pattern, view, at, len(view))


def _end(pattern: Pattern[bytes], view: memoryview, at: int, stop: int) -> int:
    """Return where the match ends; the pattern also matches the empty string."""
    return match.end() if (match := pattern.match(view, at, stop)) else at
