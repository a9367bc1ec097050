"""Growth and loss: topics get more partitions, ledgers are lost, a disk is restored."""

from tests.faults.matrix_rows.row import BOOKS, GOES_ON, LOST, MONEY, SAYS_SO, TWICE, Row

_REBUILD = "integration/test_ledger_rebuild.py::"

ROWS = (
    Row(
        156,
        "`topics expand` is killed under load",
        "SIGKILL at each of its eight steps, while two kinds of clients send every call twice, one of which uses the new "
        "partitions minutes later",
        (LOST, TWICE, MONEY, BOOKS, GOES_ON, SAYS_SO),
        "no worker starts before it is finished; the next run finishes it; usage that was counted, open, held or unread before is "
        "billed once",
        (
            "faults/test_expansion.py::test_an_expansion_killed_under_load_is_finished_by_the_next_run_to_the_cent",
            "integration/test_expansion.py::test_usage_counted_open_held_or_unread_before_is_billed_once_afterwards",
            "integration/test_expansion.py::test_a_second_expansion_keeps_the_copies_of_the_first",
        ),
    ),
    Row(
        157,
        "a worker during an interrupted expansion, or with topics that were expanded by hand",
        "a meter with the old number of partitions is started between two runs; partitions are added by Kafka's own command, and a meter with the new number is started",
        (LOST, TWICE, MONEY, BOOKS, SAYS_SO),
        "ledgers that have moved halt with `partitions_changed`, the others continue; no new ledger is begun",
        (
            "faults/test_expansion.py::test_a_worker_that_starts_between_two_runs_halts_the_moved_partitions_and_bills_nothing_twice",
            "integration/test_expansion.py::test_a_topic_that_was_grown_by_hand_is_read_by_no_new_ledger_until_its_keys_moved",
        ),
    ),
    Row(
        158,
        "the ledgers' changelog is deleted or damaged",
        "the topic deleted at a random moment of a random history; a window's record deleted; a rebuild that ends after its first "
        "or second transaction",
        (LOST, TWICE, MONEY, BOOKS, SAYS_SO),
        "the partitions halt; `ledger rebuild` builds the ledgers from the other topics, or reports the data that is missing there",
        (
            f"{_REBUILD}test_a_ledger_lost_at_a_random_moment_of_a_random_history_bills_each_call_once",
            f"{_REBUILD}test_a_damaged_ledger_is_rebuilt_and_a_correct_one_not_changed",
            f"{_REBUILD}test_a_rebuilt_ledger_knows_its_calls_in_every_step_of_one_life",
            f"{_REBUILD}test_an_interrupted_rebuild_is_repeated_and_no_worker_uses_half_of_it",
            f"{_REBUILD}test_a_grown_deployment_is_restored_with_what_its_ledgers_had_from_their_parents",
            f"{_REBUILD}test_if_the_topics_no_longer_contain_everything_it_refuses_and_says_what_is_missing",
        ),
    ),
    Row(
        159,
        "a single broker loses its disk",
        "its folder deleted and filled from the last copy, by the commands of disaster-recovery.md",
        (LOST, TWICE, MONEY, BOOKS, GOES_ON),
        "everything continues from its position",
        ("faults/test_disaster_recovery.py::test_a_broker_that_lost_its_disk_continues_from_its_last_copy",),
    ),
    Row(
        160,
        "a broker loses the folders of the ledgers",
        "deleted on its disk while it was down; rebuilt by the commands of disaster-recovery.md",
        (LOST, TWICE, MONEY, BOOKS, GOES_ON, SAYS_SO),
        "the partitions halt with `ledger_missing`, and continue when they are rebuilt",
        ("faults/test_disaster_recovery.py::test_ledgers_whose_folders_were_deleted_from_a_brokers_disk_are_rebuilt",),
    ),
    Row(
        174,
        "all topics are lost, Postgres is not",
        "SIGKILL of the only broker, its disk deleted, a new cluster; 40 calls billed, others sealed, open, held and not counted",
        (LOST, TWICE, MONEY, BOOKS, GOES_ON),
        "`recover` restores mappings, orgs and unsent events; after two backfills of everything and a repeat of every webhook, each call is billed once",
        (
            "faults/test_empty_cluster.py::test_each_cent_is_billed_once_after_all_topics_were_lost",
            "integration/test_recovered_records.py::test_mappings_orgs_and_rates_are_restored_unchanged",
            "integration/test_recovered_records.py::test_events_not_delivered_to_lago_wait_for_it_and_dead_letters_stay_dead",
        ),
        ("calls", "lost", "waiting"),
    ),
    Row(
        175,
        "all topics are lost while the projector is behind",
        "the same, with events that only Lago has; Postgres has no row of the calls of one of them",
        (TWICE, MONEY, SAYS_SO),
        "Lago is asked for its events; calls without a row are reported, and their copies are refused until a person decides",
        ("faults/test_empty_cluster.py::test_events_that_only_lago_has_are_not_billed_again",),
    ),
    Row(
        176,
        "a partition halts, and Kafka refuses its report about that",
        "the position deleted from the changelog of a real worker; a report that Kafka refuses; halts and resumptions in turn",
        (SAYS_SO, GOES_ON),
        "one outgoing webhook `partition.halted` arrives, and one `partition.resumed` when the partition continues; a refused report is "
        "written later and delays nothing",
        (
            "integration/test_partition_reports.py::test_a_worker_with_a_lost_ledger_is_announced_and_so_is_its_recovery",
            "integration/test_partition_reports.py::test_each_change_is_reported_once_and_a_report_that_could_not_be_written_again",
            "integration/test_partition_reports.py::test_a_partition_that_flaps_is_announced_once_in_ten_minutes",
        ),
    ),
    Row(
        178,
        "all topics are lost while held usage is released, and only Lago has the event",
        "the event names one of two held parts; parts whose sums do not agree; then a person confirms the log, and everything is sent again",
        (TWICE, MONEY, SAYS_SO),
        "held parts whose sum the event bills count as billed by it, and are not billed again; if the sums do not agree, a person decides first",
        (
            "faults/test_empty_cluster.py::test_usage_released_into_an_event_that_only_lago_has_is_billed_once",
            "integration/test_recovered_releases.py::test_held_parts_with_the_sum_that_the_event_bills_are_in_it",
            "integration/test_recovered_releases.py::test_sums_that_do_not_agree_are_undecided_and_a_dry_run_changes_nothing",
            "integration/test_recovered_releases.py::test_a_person_decides_about_sums_that_do_not_agree",
            "integration/test_recovered_releases.py::test_lago_is_asked_for_an_event_known_only_by_its_receipt",
            "integration/test_recovery.py::test_nothing_is_changed_before_a_person_has_decided_about_usage_that_may_be_billed",
        ),
    ),
    Row(
        179,
        "all topics are lost, and the recovery has incomplete or wrong information",
        "a deployment `a` beside `a-b` in one Lago; another deployment's database; a closed organisation; a rate card without an audit "
        "line; a sender whose clock is ten minutes ahead; an org that the projector had not seen",
        (TWICE, MONEY, SAYS_SO),
        "`recover` does not use events of other deployments, asks Lago for missing data, and refuses to continue without data that it cannot get",
        (
            "integration/test_recovery.py::test_another_deployments_database_is_refused",
            "integration/test_recovery.py::test_events_of_a_deployment_with_a_longer_name_are_not_taken_for_ours",
            "integration/test_recovery.py::test_orgs_of_a_closed_organisation_are_not_asked_for_and_those_of_a_missing_one_are",
            "integration/test_recovered_records.py::test_an_event_waits_for_its_orgs_organisation_with_or_without_an_org_row",
            "integration/test_recovery.py::test_a_rate_card_without_a_line_is_reported_and_a_person_decides",
            "integration/test_recovery.py::test_a_call_with_a_clock_that_is_ahead_waits_for_the_log",
            "integration/test_recovery.py::test_lago_is_asked_for_all_new_events_for_any_known_orgs_and_periods",
        ),
    ),
)
