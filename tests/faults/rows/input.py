"""Input: hostile, broken or unlucky. Each costs itself, and the damage is measured: how long another sender waited, the peak
of memory, and neighbours that were lost."""

from tests.faults.rows.row import GOES_ON, LOST, SAYS_SO, Row

_STRANGER = "faults/test_strangers.py::test_a_stranger_who_does_his_worst_keeps_nobody_waiting"
_DAMAGE = ("longest_wait_s", "peak_mib", "lost_neighbours")

ROWS = (
    Row(
        101,
        "a stranger's gzip of 1 GiB of blanks, and large bodies, at 10 MB/s",
        "without a credential to every port, and under a signature that is none; honest senders and probes beside it",
        (LOST, GOES_ON),
        "nothing is unpacked before its sender is known, and nothing of it is kept; a refused body is not read",
        (_STRANGER, "integration/test_connections.py::test_what_a_refusal_left_unread_is_never_read"),
        shows=_DAMAGE,
    ),
    Row(
        102,
        "700 connections that never say a word, to a process of 256 descriptors",
        "from eight addresses; each is opened again when it is closed",
        (LOST, GOES_ON, SAYS_SO),
        "they are cut at WEBHOOK_TIMEOUT; where all places are taken the oldest of them makes room",
        (
            _STRANGER,
            "integration/test_connections.py::test_whoever_says_nothing_is_closed_in_time_and_whoever_was_admitted_is_not",
            "integration/test_connections.py::test_where_all_places_are_taken_whoever_is_silent_makes_room",
        ),
        shows=_DAMAGE,
    ),
    Row(
        103,
        "guessed tokens, as many as can be sent",
        "wrong bearer tokens on both ports, from eight addresses",
        (GOES_ON, SAYS_SO),
        "ten a second and address are answered at once, others after a second; counted, and logged once a minute without the guess",
        (
            _STRANGER,
            "integration/test_strangers.py::test_guesses_are_counted_and_told_once_a_minute_and_never_with_the_guess",
        ),
        shows=_DAMAGE,
    ),
    Row(
        104,
        "a damaged element of millions of parts",
        "a NaN beside 8 Mi numbers, objects or brackets, 16 kB on the wire, between two sound calls",
        (LOST, GOES_ON, SAYS_SO),
        "that element is `too_complex`: 202; its neighbours are stored, and other senders go on meanwhile",
        ("integration/test_ingress_bounds.py::test_a_damaged_element_of_a_million_parts_costs_itself",),
    ),
    Row(
        105,
        "a body of empty elements",
        "20,000 times `{}` between calls",
        (LOST, SAYS_SO),
        "each is listed in the answer; beyond a hundred they share one rejection",
        (
            "integration/test_ingress_bounds.py::test_elements_without_anything_of_a_call_share_a_rejection_beyond_a_hundred",
        ),
    ),
)
