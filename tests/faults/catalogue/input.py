"""Hostile, damaged or unusual input, which must not affect other input. The tests measure how long other senders and probes waited, the peak of memory, and lost calls of others."""

from tests.faults.catalogue.row import BOOKS, GOES_ON, LOST, MONEY, SAYS_SO, TWICE, Row

_STRANGER = "faults/test_unauthenticated_clients.py::test_a_client_without_a_credential_delays_no_other_sender"
_LONGER = "`SECONDS=60`, and held to 250 ms"


def _damage(*kinds: str) -> tuple[str, ...]:
    """Return the figures of these attacks."""
    of_one = ("p99_ms", "longest_ms", "health_longest_ms", "peak_mib", "lost")
    return ("attack_s", *(f"{kind}_{figure}" for kind in kinds for figure in of_one))


ROWS = (
    Row(
        101,
        "an unauthenticated client sends gzip of 1 GiB of blanks, and large bodies, at 10 MB/s",
        "to every port without a credential, and with an invalid signature; other senders and probes at the same time",
        (LOST, GOES_ON),
        "nothing is decompressed before the sender is known, and nothing is kept; a refused body is not read",
        (_STRANGER, "integration/test_connections.py::test_the_unread_rest_of_a_refused_body_is_never_read"),
        shows=_damage("bombs", "signed_bombs", "large_bodies"),
        longer=_LONGER,
    ),
    Row(
        102,
        "700 connections that send nothing, to a process with 256 file descriptors",
        "from eight addresses; each connection is opened again when it is closed",
        (LOST, GOES_ON, SAYS_SO),
        "they are closed after WEBHOOK_TIMEOUT; if all places are taken, the oldest idle connection is closed",
        (
            _STRANGER,
            "integration/test_connections.py::test_a_silent_connection_is_closed_in_time_and_an_authenticated_one_is_not",
            "integration/test_connections.py::test_if_all_places_are_taken_a_silent_connection_is_closed_for_a_new_one",
        ),
        shows=_damage("silence"),
        longer=_LONGER,
    ),
    Row(
        103,
        "guessed tokens at the highest possible rate",
        "wrong bearer tokens on both ports, from eight addresses",
        (GOES_ON, SAYS_SO),
        "of each address ten per second are answered at once, the others after a second; they are counted, and logged once a minute without the token",
        (
            _STRANGER,
            "integration/test_credential_guesses.py::test_guesses_are_counted_and_logged_once_a_minute_and_never_with_the_guess",
        ),
        shows=_damage("guesses"),
        longer=_LONGER,
    ),
    Row(
        104,
        "a damaged element with millions of parts",
        "a NaN with 8 Mi numbers, objects or brackets, 16 kB compressed, between two valid calls",
        (LOST, GOES_ON, SAYS_SO),
        "that element is `too_complex`: 202; the other elements are stored, and other senders are served in the meantime",
        ("integration/test_ingress_bounds.py::test_a_damaged_element_of_a_million_parts_is_refused_alone",),
    ),
    Row(
        105,
        "a body of empty elements",
        "20,000 times `{}` between calls",
        (LOST, SAYS_SO),
        "each is listed in the response; above a hundred they share one rejection",
        (
            "integration/test_ingress_bounds.py::test_elements_without_any_field_of_a_call_share_a_rejection_beyond_a_hundred",
        ),
    ),
    Row(
        106,
        "damaged records in every topic, under load",
        "changed bits, truncated records, deep JSON, 0xFF, huge numbers, invalid headers, keys and times; five per second and topic, with all processes running",
        (LOST, TWICE, GOES_ON, SAYS_SO),
        "every call is billed once, no process ends, no partition task halts; records that cannot become a row are listed",
        ("faults/test_mutated_records.py::test_damaged_records_in_every_topic_cost_themselves_alone",),
        longer="MINUTES=10",
    ),
    Row(
        107,
        "bytes that no sender and no producer would make",
        "inputs that the fuzzer found, and inputs with very many repetitions, to every reader of outside bytes; `make fuzz` searches for more",
        (GOES_ON, SAYS_SO),
        "read, or refused with a reason, with bounded CPU time and memory for each byte",
        ("fuzz/test_corpus.py::test_every_kept_input_is_read_or_refused_in_little_time_and_memory",),
        simulated="thousands of inputs a second are tried directly on the readers, without a process",
    ),
    Row(
        108,
        "a role with another role's Kafka account",
        "a broker that denies everything without an access-control list; each process has its own account, by password (SCRAM) and by certificate",
        (LOST, SAYS_SO),
        "each role and each command does its work; the broker allows no account a topic, group or transactional id of another role",
        ("faults/test_acls.py::test_every_role_works_with_its_own_account_and_cannot_do_another_roles_work",),
    ),
    Row(
        109,
        "a client that names another customer",
        "in each field, header, metadata and tag that a client of LiteLLM can write",
        (MONEY, SAYS_SO),
        "if a key determines CUSTOMER_ID_FIELDS, no bill changes; by default the doctor reports `client_names_payer`",
        (
            "unit/streams/core/metering/test_client_names_a_payer.py::test_no_field_that_a_client_can_write_decides_who_pays",
        ),
        simulated="only the reader of the ingress is tested; recorded bodies show what LiteLLM makes of a request",
    ),
    Row(
        110,
        "a key of one org that tries to map or to find customers of others",
        "mappings of `victim` and of `unattributed:`; ids of another org and unknown ids",
        (MONEY, SAYS_SO),
        "only ids under its prefixes are mapped; the response is the same for ids of others and for unknown ids",
        (
            "integration/test_mapping_orgs.py::test_an_id_without_one_of_its_prefixes_cannot_be_mapped",
            "integration/test_mapping_orgs.py::test_the_answer_is_the_same_for_another_orgs_id_and_for_an_unknown_one",
        ),
    ),
    Row(
        111,
        "recorded usage that makes a bill smaller, or that Lago cannot store",
        "-1e308, and negative values by a key that may only write usage",
        (MONEY, SAYS_SO),
        "refused with a reason; negative values need `usage:correct`, and each record names its author",
        ("contract/test_org_privileged_actions.py::test_a_number_that_lago_cannot_hold_is_refused",),
        simulated="the api with the Lago sandbox: refused usage never reaches Kafka",
    ),
    Row(
        112,
        "a customer's name with markup, escape sequences or bidirectional marks",
        "printed by every command that prints names",
        (SAYS_SO,),
        "the name is shown escaped, in one row",
        ("integration/test_hostile_names.py::test_no_command_lets_a_name_control_the_terminal",),
    ),
    Row(
        113,
        "an audit line that is changed, deleted, inserted or moved",
        "in the topic and in the table",
        (SAYS_SO,),
        "`meterbridge audit verify` names the first such line and ends with 1",
        (
            "integration/test_audit_verify.py::test_a_manipulation_of_the_topic_is_named_and_changes_the_exit_code",
            "integration/test_audit_verify.py::test_a_row_that_differs_from_its_line_is_named",
        ),
    ),
    Row(
        141,
        "names of 4,000 characters in every field that a sender chooses",
        "incompressible text, with characters of one and of four bytes, in calls, mappings, orgs, refusals, deliveries and audit lines",
        (LOST, GOES_ON),
        "the call is stored, and summed up under the SHA-256 of its names; the other calls are stored and summed up as usual",
        (
            "integration/test_long_names.py::test_a_call_with_names_of_any_length_is_stored_and_summed_with_the_others",
            "integration/test_long_names.py::test_text_bounded_by_the_projector_and_the_sums_fits_into_every_index",
        ),
    ),
    Row(
        142,
        "a day whose sums cannot be computed",
        "a trigger refuses a row of its sums, or takes a minute for it; the whole refresh is refused",
        (GOES_ON, SAYS_SO),
        "that day keeps its old sums and is tried again after longer and longer waits; the other days are summed up; the failure is counted and logged",
        (
            "integration/test_usage_refresh.py::test_a_day_that_fails_keeps_its_sums_and_all_others_continue",
            "integration/test_usage_refresh.py::test_a_day_that_takes_too_long_is_skipped",
            "integration/test_usage_refresh.py::test_a_failed_refresh_is_counted_and_waits_longer_and_longer",
        ),
    ),
    Row(
        143,
        "invented names of models",
        "more pairs of provider and model than the product evaluates",
        (GOES_ON,),
        "the pairs with the most calls are evaluated and kept, the others are not",
        ("integration/test_provider_health.py::test_of_invented_names_only_the_most_used_are_judged",),
    ),
    Row(
        114,
        "a start while a dependency is down, and SIGTERM at any moment",
        "each role is started while Kafka or Postgres is down; SIGTERM while it starts, waits, opens its partitions and works",
        (GOES_ON, SAYS_SO),
        "it waits, and logs this once a minute with the address; it ends with 0 within ten seconds",
        (
            "faults/test_stop_at_any_moment.py::test_a_process_that_starts_while_kafka_is_unavailable_waits_for_it_and_starts",
            "faults/test_stop_at_any_moment.py::test_a_process_that_waits_for_its_servers_ends_with_0",
            "faults/test_stop_at_any_moment.py::test_a_kafka_that_becomes_unavailable_while_a_role_starts_is_waited_for",
            "faults/test_stop_at_any_moment.py::test_a_start_may_be_stopped_at_any_moment",
            "faults/test_readiness.py::test_readiness_follows_kafka_and_an_ingress_with_a_spool_stays_ready_and_reports_it",
        ),
    ),
    Row(
        115,
        "a flood of invented customer names",
        "more names than HELD_IN_MEMORY, one call each; one of them is mapped, the rest written off by pattern",
        (LOST, TWICE, MONEY, BOOKS, SAYS_SO),
        "all calls get 202 and are held, above the limit on disk; a mapped customer is billed to the cent, also after restarts",
        (
            "integration/test_held_flood.py::test_one_customer_of_a_flood_is_billed_when_it_is_mapped_and_the_others_are_written_off_by_pattern",
        ),
    ),
    Row(
        116,
        "connections to the metrics port, and scrapes without a pause",
        "200 connections that send nothing and 8 that scrape, from eight addresses; other senders and probes at the same time",
        (LOST, GOES_ON, SAYS_SO),
        "16 connections are served, each for at most ten seconds, with 20 responses a second; if all are taken, the address with the most connections loses its oldest",
        (
            _STRANGER,
            "integration/test_metrics_port.py::test_five_hundred_silent_connections_take_few_descriptors_and_prometheus_is_answered",
            "integration/test_metrics_port.py::test_scrapes_without_a_pause_take_a_small_share_of_a_core",
        ),
        shows=_damage("metrics_port"),
        longer=_LONGER,
    ),
    Row(
        127,
        "a client that names another user, or the id of another's call",
        "`end_user` with the name of a prepaid user, and the call id of an open reservation",
        (MONEY, BOOKS, SAYS_SO),
        "that user's credits and reservation do not change; the user of the key pays, and calls without a payer are counted and listed",
        (
            "integration/test_credit_payers.py::test_a_client_that_names_another_user_spends_none_of_that_users_credits",
            "integration/test_credit_payers.py::test_a_call_with_the_id_of_anothers_call_neither_spends_nor_ends_its_reservation",
            "integration/test_credit_payers.py::test_a_client_that_names_an_end_user_is_debited_as_the_user_of_its_key",
        ),
    ),
    Row(
        134,
        "a call whose record the ingress refuses, in the ring of the LiteLLM plugin",
        "413 and 400 for one record and for a whole batch, and 500 for one record; also in the ring of another process",
        (LOST, GOES_ON, SAYS_SO),
        "it is kept in a separate file, counted and logged without its contents; all other records and rings are posted",
        (
            "integration/test_plugin_ring.py::test_a_record_that_the_ingress_refuses_is_kept_apart_and_all_others_are_in_kafka_once",
            "contract/test_plugin_posting.py::test_a_single_element_is_refused_for_itself_if_the_ingress_accepts_others",
            "contract/test_plugin_posting.py::test_a_record_that_crashes_the_server_is_found_after_several_crashes",
        ),
    ),
    Row(
        133,
        "more slow requests of analytics and lists of transactions than there are connections",
        "four of each at the same time, on a locked table or a slow statement; with reservations, balances and power levels",
        (GOES_ON, SAYS_SO),
        "they have two separate connections; a request without a free connection in 2 s gets 503 `no_free_connection`, and is counted; other requests are not slower",
        (
            "integration/test_slow_requests.py::test_four_slow_requests_leave_authorize_balance_and_power_levels_fast",
            "integration/test_slow_requests.py::test_many_requests_of_a_locked_account_leave_connections_for_the_others",
        ),
    ),
    Row(
        203,
        "a compressed body of very many gzip members",
        "2 MiB of members without contents, 20 bytes each, under an invalid signature; honest senders and probes at the same time",
        (LOST, GOES_ON),
        "more than 10,000 members are refused; decompression takes time in proportion to the body",
        (_STRANGER,),
        shows=_damage("gzip_members"),
        longer=_LONGER,
    ),
    Row(
        204,
        "clients that read no response",
        "300 connections from eight addresses to a process with 256 descriptors, each with a hundred requests for the metrics; large heads behind them",
        (LOST, GOES_ON, SAYS_SO),
        "nothing more is read from them, and they are closed after two to three times WEBHOOK_TIMEOUT, or for a new connection if all places are taken; requests for the metrics share a response",
        (
            _STRANGER,
            "integration/test_connections.py::test_if_clients_that_do_not_read_have_all_places_a_new_one_gets_a_place",
            "integration/test_connections.py::test_a_client_that_does_not_read_its_responses_is_closed_in_time",
            "integration/test_connections.py::test_nothing_is_read_from_a_client_that_does_not_read",
            "integration/test_connections.py::test_few_requests_are_read_while_another_one_is_answered",
        ),
        shows=_damage("unread_responses"),
        longer=_LONGER,
    ),
    Row(
        213,
        "numbers with a huge exponent in details of a call",
        "1e-5000000 seconds, as a number and as text, and 1e-999999 dollars of failed attempts",
        (LOST, GOES_ON),
        "the detail is rounded before it is written, so it needs no more memory than other details; the call is stored and billed",
        (
            "unit/streams/core/metering/test_tolerant_reader.py::test_a_number_of_seconds_is_not_written_out",
            "unit/ingest/test_carried_costs.py::test_a_call_is_not_refused_for_a_tiny_amount",
        ),
    ),
)
