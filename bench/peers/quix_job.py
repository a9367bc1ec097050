"""Quix Streams with the meter's job in its usual way, at least once: windows of a minute, calls and cost by model.

The records are keyed by customer, so the windows are kept by key and hold a sum for each model: a new key of customer
and model would send every record through another topic first.
"""

import sys
from typing import Any

from quixstreams import Application

from bench.stopwatch import Stopwatch

_WINDOW_MS = 60_000
#: As in the meter's run, no window closes while the clock runs.
_GRACE_MS = 3_600_000


def main(bootstrap: str, topic: str, group: str, state_dir: str, records: int) -> None:
    """Process `records` records and commit a checkpoint: state, changelog and offsets."""
    watch, left = Stopwatch(), records

    def processed(_topic: str, _partition: int, _offset: int) -> None:
        nonlocal left
        watch.start()
        left -= 1
        if not left:
            app._processing_context.commit_checkpoint(force=True)  # noqa: SLF001  # or it would come after 5 s
            watch.stop(records)
            app.stop()

    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=state_dir,
        loglevel="ERROR",
        on_message_processed=processed,
    )
    calls = app.dataframe(app.topic(topic, key_deserializer="str", value_deserializer="json"))
    windows = calls.apply(_read).tumbling_window(_WINDOW_MS, grace_ms=_GRACE_MS)
    windows.reduce(reducer=_add, initializer=_first).final()
    app.run()


def _read(record: dict[str, Any]) -> tuple[str, float, int]:
    call = record["call"]
    cost = call["spend"]
    return call["model"], float(cost), call["total_tokens"]


def _first(call: tuple[str, float, int]) -> dict[str, list[float]]:
    return _add({}, call)


def _add(sums: dict[str, list[float]], call: tuple[str, float, int]) -> dict[str, list[float]]:
    model, cost, tokens = call
    calls, cost_before, tokens_before = sums.get(model, (0, 0.0, 0))
    sums[model] = [calls + 1, cost_before + cost, tokens_before + tokens]
    return sums


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]))
