"""Records that are invalid, too large, repeated or late."""

from tests.faults.catalogue.row import BOOKS, GOES_ON, LOST, MONEY, SAYS_SO, TWICE, Row

ROWS = (
    Row(
        61,
        "a record of the events topic that is not an event",
        "bytes that are not JSON between two events",
        (LOST, SAYS_SO),
        "a dead letter, byte for byte; the other events are delivered",
        (
            "integration/test_sink.py::test_a_record_that_is_no_event_is_a_dead_letter",
            "integration/test_dead_letters.py::test_a_dead_letter_is_the_unchanged_record_with_all_its_headers",
        ),
    ),
    Row(
        62,
        "bad elements in a body",
        "NaN, infinities, wrong types, invalid JSON, nesting and unusual unicode, together with valid calls",
        (LOST, SAYS_SO),
        "each is refused with its reason; an invalid element does not affect the others",
        (
            "integration/test_ingress_bad_input.py::test_a_bad_element_does_not_affect_the_others",
            "integration/test_ingress_bad_input.py::test_a_bad_line_does_not_affect_the_others",
            "integration/test_ingress_bad_input.py::test_an_unusual_call_is_billed_like_any_other",
        ),
    ),
    Row(
        63,
        "an oversized record",
        "a call above the topic's max.message.bytes, with Kafka running and with Kafka down",
        (LOST, GOES_ON, SAYS_SO),
        "rejected with `too_large`; it blocks neither other calls nor the drain of the spool",
        (
            "integration/test_ingress_bad_input.py::test_a_record_that_kafka_refuses_as_too_large_does_not_affect_the_others",
            "integration/test_spool.py::test_a_record_that_kafka_refuses_as_too_large_is_rejected_and_does_not_block_the_spool",
        ),
    ),
    Row(
        64,
        "an oversized body",
        "larger than MAX_BODY_BYTES, with or without Content-Length, plain or gzip",
        (GOES_ON, SAYS_SO),
        "413 in bounded memory",
        ("integration/test_ingress_bad_input.py::test_a_body_that_is_too_large_is_refused_in_every_form",),
    ),
    Row(
        65,
        "every call is delivered three times",
        "the same records three times in the raw topic",
        (TWICE, MONEY, BOOKS),
        "counted once; the other copies are duplicates",
        (
            "integration/test_meter.py::test_calls_become_events_once_for_any_number_of_deliveries",
            "e2e/test_recorded_bodies.py::test_recorded_bodies_sent_three_times_are_billed_once",
        ),
    ),
    Row(
        66,
        "the calls of one day arrive by webhook, replay, and backfill from Postgres and from files",
        "the same calls, in one way after the other",
        (TWICE, MONEY),
        "calls, tokens and cents at Lago do not change",
        ("integration/test_backfill.py::test_one_day_sent_in_four_ways_is_billed_once",),
    ),
    Row(
        67,
        "a call arrives again after three days",
        "a raw record older than the dedupe retention",
        (TWICE, SAYS_SO),
        "`beyond_horizon`; released only after the usage log was asked",
        ("integration/test_dlq.py::test_a_call_repeated_after_three_days_is_not_billed_again_and_a_new_one_is",),
    ),
    Row(
        68,
        "a replay is interrupted",
        "stopped in the middle, started again",
        (LOST, TWICE),
        "it continues from its position",
        ("integration/test_replay.py::test_an_interrupted_replay_continues_where_it_stopped",),
    ),
    Row(
        69,
        "dead letters are requeued twice",
        "the same requeue again, and two operators at once",
        (LOST, TWICE),
        "each is requeued once; of two commands the first one can no longer write",
        (
            "integration/test_dlq.py::test_requeued_events_arrive_once_however_often_the_command_is_repeated",
            "integration/test_dlq.py::test_of_two_requeuers_the_first_is_fenced",
        ),
    ),
    Row(
        70,
        "poison records in the raw topic",
        "no value, an empty value, bytes that are no text, an Avro frame, truncated JSON, 10,000 brackets, NaN, an unknown shape; each with a valid call",
        (LOST, GOES_ON, SAYS_SO),
        "one rejection each, with length and hash or the call itself; the partition continues",
        (
            "faults/test_unexpected_records.py::test_invalid_records_in_the_raw_topic_are_rejected_with_their_reason_and_the_others_are_billed",
        ),
    ),
    Row(
        71,
        "a newer schema: a call stored by a later release",
        "an envelope of the next version, readable or not; unknown fields in an envelope of this version",
        (LOST, SAYS_SO),
        "`unknown_version`, kept unchanged until the workers are upgraded; unknown fields have no effect",
        ("faults/test_unexpected_records.py::test_a_call_of_a_later_release_is_stored_as_rejected_and_not_guessed",),
    ),
    Row(
        72,
        "a newer schema: a ledger written by a later release",
        "a position of the next version at the end of the changelog, as after a roll-back",
        (TWICE, BOOKS, SAYS_SO),
        "the partition task halts with `newer_version`, and writes nothing",
        ("faults/test_unexpected_records.py::test_a_ledger_of_a_later_release_is_not_opened_and_not_changed",),
    ),
    Row(
        73,
        "a newer schema: an event with more fields",
        "an unknown field in a record of the events topic",
        (LOST, TWICE),
        "posted byte for byte; Lago ignores unknown fields",
        ("faults/test_unexpected_records.py::test_an_event_with_fields_of_a_later_release_is_posted_unchanged",),
    ),
)
