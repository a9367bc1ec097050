"""Complaints about topics are one text that an operator can read."""

from connectors.kafka.errors import in_one, topic_missing


def test_missing_topics_are_named_in_one_sentence() -> None:
    """Earlier a new installation read the same sentence thirteen times."""
    one, two = topic_missing("a.raw").detail, topic_missing("a.orgs").detail
    assert in_one([one]) == "Topic a.raw is missing: run `meterbridge topics create`."
    assert in_one([one, "Topic b is odd.", two]) == (
        "Topics a.raw, a.orgs are missing: run `meterbridge topics create`. Topic b is odd."
    )
    assert in_one(["Topic b is odd.", "Topic c is odd."]) == "Topic b is odd. Topic c is odd."
