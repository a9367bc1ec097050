"""Our own processes: killed, frozen, stopped, too many of them, with a wrong clock."""

from tests.faults.rows.row import BOOKS, EXACT, GOES_ON, LOST, MONEY, SAME, SAYS_SO, TWICE, Row

_EXACTNESS = "faults/test_exactness.py::test_every_cent_is_billed_once_whatever_is_killed_frozen_or_cut"
_MORE = "`make soak` draws a new minute of all faults for each of MINUTES"

ROWS = (
    Row(
        1,
        "kill -9 of meter, sink and retry, again and again under load",
        "SIGKILL at random moments, started again 0.5-3 s later; 300 calls/s through HTTP",
        (*EXACT, GOES_ON),
        "the next owner aborts the open transaction, reads the ledger back and goes on; Lago's key tells the repeats",
        (_EXACTNESS,),
        ("calls", "usd", "killed_workers", "drained_s"),
        longer=_MORE,
    ),
    Row(
        2,
        "kill -9 of the ingress under load",
        "SIGKILL while bodies are on their way; the sender repeats what was not answered 202",
        (*EXACT, GOES_ON),
        "every 202 is in the raw topic; a repeat is a duplicate",
        (_EXACTNESS,),
        ("calls", "killed_ingress"),
        longer=_MORE,
    ),
    Row(
        3,
        "a worker freezes and wakes",
        "SIGSTOP of meters and sinks for less than the transaction timeout (12 s), for more, and past the session (15 s)",
        (*EXACT, GOES_ON),
        "its producer is fenced: nothing it writes after waking is committed, and it ends itself",
        (_EXACTNESS, "integration/test_ledger.py::test_a_frozen_owners_late_transaction_is_refused"),
        ("freeze",),
        longer=_MORE,
    ),
    Row(
        4,
        "a rolling restart under load",
        "SIGTERM to each process of a worker in turn, and to the ingress",
        (*EXACT, GOES_ON),
        "each ends with code 0 within 10 s; nothing it had begun is lost or repeated",
        (
            _EXACTNESS,
            "integration/test_worker.py::test_a_worker_stopped_while_its_roles_are_still_starting_has_stopped_cleanly",
        ),
        ("roll",),
        longer=_MORE,
    ),
    Row(
        5,
        "a third worker joins and leaves under load",
        "a meter and a sink more, for 5-8 s, three times a minute",
        (*EXACT, GOES_ON),
        "partitions move, chunks that Faust drops are asked for again",
        (_EXACTNESS,),
        ("join",),
        longer=_MORE,
    ),
    Row(
        6,
        "customers are mapped while their calls arrive",
        "every third customer 20-40 s after the load began, during all other faults",
        EXACT,
        "usage is held and goes where the mapping says, all of it",
        (_EXACTNESS, "integration/test_meter.py::test_usage_of_an_unmapped_customer_waits_for_its_mapping"),
        ("calls",),
    ),
    Row(
        7,
        "kill -9 at each step of a post to Lago",
        "before sending, sent, stored, answered, before the commit, in it, after it; sink and retry, both event stores",
        (LOST, TWICE, SAME),
        "the next owner posts again what it cannot know; each event is stored and receipted once",
        (
            "faults/test_post_steps.py::test_whoever_dies_at_a_step_of_a_post_doubles_nothing_and_loses_nothing",
            "faults/test_post_steps.py::test_the_next_owner_posts_again_what_it_cannot_know",
        ),
    ),
    Row(
        8,
        "the retry role dies while an event waits",
        "SIGKILL during the wait, another one takes over",
        (LOST, TWICE, GOES_ON),
        "the event is posted not before its moment, and its wait does not begin anew",
        (
            "faults/test_sink_faults.py::test_a_retry_role_killed_while_it_waits_leaves_the_moment_as_it_was",
            "integration/test_dead_letters.py::test_a_retry_that_is_restarted_waits_until_its_moment_and_not_longer",
        ),
    ),
    Row(
        9,
        "a chunk that Faust fetched and dropped, in the meter",
        "chunks taken away between Faust and the lane",
        (LOST, MONEY),
        "the lane sees the gap and asks again",
        ("integration/test_transport.py::test_a_chunk_the_meter_never_got_is_asked_for_again",),
    ),
    Row(
        10,
        "the same in sink, retry and projector",
        "chunks taken away between Faust and the lane",
        (LOST, TWICE),
        "the lane sees the gap and asks again",
        (
            "integration/test_sink.py::test_a_chunk_that_was_dropped_is_asked_for_again",
            "integration/test_projector.py::test_a_chunk_that_was_dropped_is_asked_for_again",
        ),
    ),
    Row(
        11,
        "a ledger whose books do not add up",
        "a counter changed by one in the changelog",
        (BOOKS, SAYS_SO),
        "it is not opened: its lane halts with `conservation`, the others go on",
        (
            "integration/test_ledger.py::test_books_that_do_not_add_up_are_not_opened",
            "integration/test_meter.py::test_a_wrong_ledger_halts_its_lane_and_alarms_while_the_process_goes_on",
        ),
    ),
)
