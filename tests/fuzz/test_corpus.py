"""Every input that the fuzzer found worth keeping is tried again: no exception, and little time and memory a byte.

`make fuzz` looks for more. An input that broke a law is kept here too, and fails until the fault is fixed.
"""

import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.__main__ import CORPUS, _merge
from tests.fuzz.stored import JSON, PACKED, READERS
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
#: CPU: what any input may take, and each of its bytes; many times what they take on a slow machine.
_SECONDS, _SECONDS_A_BYTE = 1.0, 20e-6
#: Memory, as Python counts it; an unpacked step is 1 MiB.
_BYTES, _BYTES_A_BYTE = 16 << 20, 400
#: So long that a time with the square of the length would be seen: the header of a CSV file once took 12 s for 100 kB.
_OFTEN_BYTES = 60_000
#: What a small input says often: depth, elements, numbers, escapes.
_OFTEN = (
    *(b"[", b"{", b'{"a":', b"[0,", b",", b'"', b"\\", b"\\u0000", b"[[]],", b"{},", b'{"id":"x","spend":NaN},', b"\n"),
    *(
        b"1",
        b"-",
        b"1e9",
        b"\xff",
        b"\xed\xa0\x80",
        b" ",
        b"\0",
        b'{"events":[',
        b"a,",
        b'"a"\n',
        b"v1,",
        b"\x1f\x8b\x08",
    ),
)


def measured(target: Any, data: bytes) -> None:
    """One run for the time, another for the memory: measuring memory takes time."""
    begun = time.process_time()
    target(data)
    assert time.process_time() - begun <= _SECONDS + _SECONDS_A_BYTE * len(data)
    tracemalloc.start()
    try:
        target(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= _BYTES + _BYTES_A_BYTE * len(data)


@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_is_read_or_refused_in_little_time_and_memory(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert len(inputs) >= 2
    for path in inputs:
        measured(TARGETS[name], path.read_bytes())


@pytest.mark.parametrize("piece", _OFTEN, ids=repr)
@pytest.mark.parametrize("name", [name for name in TARGETS if name != "stored"])
def test_the_time_for_a_repeated_input_is_proportional_to_its_length(name: str, piece: bytes) -> None:
    repeated = piece * (_OFTEN_BYTES // len(piece))
    for data in (b"\0" + repeated, b"\0[" + repeated, b'\0{"id":"x","spend":NaN,"m":[' + repeated):
        measured(TARGETS[name], data)


@pytest.mark.parametrize("reader", range(len(READERS)))
def test_the_time_for_a_stored_record_with_repeated_content_is_proportional_to_its_length(reader: int) -> None:
    for piece in _OFTEN:
        measured(TARGETS["stored"], bytes([reader]) + piece * (_OFTEN_BYTES // 4 // len(piece)))


def test_an_input_that_reaches_new_code_joins_the_corpus(tmp_path: Path) -> None:
    """In an earlier version none did: libFuzzer starts itself again to merge, and could not."""
    pytest.importorskip("atheris", reason="the fuzzer is installed by `make fuzz`")
    corpus, new = tmp_path / "corpus", tmp_path / "new"
    for each in (corpus, new):
        each.mkdir()
    (new / "one").write_bytes(b"\0 2026-11-20T12:00:00Z")
    _merge("words", corpus, new)
    assert len(list(corpus.iterdir())) == 1


def test_every_type_that_is_read_from_a_topic_is_fuzzed() -> None:
    """Each `decoder(...)` in the sources, and each table that reads a topic."""
    read = re.compile(r"\bdecoder\((_?[A-Z]\w*)")
    found = {
        name
        for folder in ("schemas", "streams", "connectors")
        for path in (ROOT / folder).rglob("*.py")
        for name in read.findall(path.read_text())
    }
    fuzzed = {of.__name__ for of in (*JSON, *PACKED)}
    assert found and found <= fuzzed | {"_Whose"}, found - fuzzed
