"""Upgrades: the earlier version left its topics, ledgers and spool; this version continues with them.

An upgrade under load is no row, because it needs both versions: `make upgrade` (docs/upgrade.md).
"""

from tests.faults.matrix_rows.row import BOOKS, GOES_ON, LOST, MONEY, TWICE, Row

ROWS = (
    Row(
        121,
        "this version continues where an earlier version stopped",
        "topics, groups and spool file, recorded from processes of the earlier version: windows open and held, calls not counted, "
        "events not posted, in the retry topic and dead; copies of recorded calls",
        (LOST, TWICE, MONEY, BOOKS, GOES_ON),
        "everything is read; waiting usage is billed once; delivered events and dead letters stay as they are; copies are not billed; the sum is "
        "the amount owed for the recorded calls",
        ("faults/test_upgrades.py::test_the_work_that_an_earlier_version_left_is_billed_once_to_the_cent",),
    ),
)
