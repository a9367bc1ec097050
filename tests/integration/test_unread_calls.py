"""Calls that no process has read yet are named by every command that would leave them out."""

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from connectors.doctor.kafka_rules import judge_topics
from tests.support.billed_day import calls
from tests.support.command import meterbridge
from tests.support.eventually import soon
from tests.support.stage import Stage


async def test_calls_that_nobody_reads_do_not_add_up(stage: Stage) -> None:
    """Earlier `reconcile` said that all adds up, and nothing of calls that lay unread while no worker ran."""
    stage.put(calls(range(3), "ghost", cost="0.013"))
    result = await meterbridge(stage, "reconcile", "--json")
    assert (result.code, result.json["adds_up"]) == (1, False), result.out
    assert (result.json["uncounted"]["records"], result.json["uncounted"]["role_runs"]) == (3, False)
    for words, empty in (("held", "Nothing is held."), ("dlq", "There are no open dead letters.")):
        listed = (await meterbridge(stage, words, "list")).out
        assert listed.startswith(f"{empty} 3 calls in {stage.topics.raw} are not counted yet, ")
    (complaint,) = result.json["complaints"]
    assert complaint.startswith(f"3 calls in {stage.topics.raw} are not counted yet, the oldest is ")
    assert complaint.endswith("no meter runs: `meterbridge worker --only meter`. They are in no sum here")
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 3, limit_s=20)
        result = await meterbridge(stage, "reconcile", "--json")
    assert "not counted" not in (await meterbridge(stage, "dlq", "list")).out
    assert (result.code, result.json["uncounted"]) == (0, {"records": 0, "oldest_seconds": 0.0, "role_runs": True})
    assert await judge_topics(stage.settings) == ()


async def test_calls_of_a_stopped_worker_are_named_by_each_command_and_so_is_a_wrong_deployment_name(
    stage: Stage,
) -> None:
    """Earlier `held list` named them only if it was empty, the doctor never; with a wrong name the advice was to start a worker."""
    stage.put(calls(range(2), "ghost", cost="0.013"))
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 2, limit_s=20)
    stage.put(calls(range(2, 3), "ghost", cost="0.013"))
    start = "no meter runs: `meterbridge worker --only meter`."
    listed = (await meterbridge(stage, "held", "list")).out
    assert "ghost" in listed and f"1 call in {stage.topics.raw} is not counted yet, " in listed and start in listed
    (finding,) = await judge_topics(stage.settings)
    assert finding.code == "calls_wait" and finding.sentence.endswith(start)
    wrong = (await meterbridge(stage, "held", "list", DEPLOYMENT_NAME="prod")).out
    name = f"DEPLOYMENT_NAME={stage.deployment.name}"
    assert f"no meter runs: but one has read it under {name}, while DEPLOYMENT_NAME is prod: correct it." in wrong


async def test_calls_that_left_the_topic_uncounted_do_not_add_up(stage: Stage) -> None:
    stage.put(calls(range(1), "ghost"), partition=0)
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 1, limit_s=20)
    stage.put(calls(range(1, 4), "ghost"), partition=0)
    admin = AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    for future in admin.delete_records([TopicPartition(stage.topics.raw, 0, 4)]).values():
        future.result()
    result = await meterbridge(stage, "reconcile", "--json")
    assert (result.code, result.json["complaints"]) == (
        1,
        [f"partition 0: 3 offsets left {stage.topics.raw} before they were counted"],
    )


async def test_a_call_that_nobody_has_read_is_explained_by_the_process_that_is_missing(
    stage: Stage, database: str
) -> None:
    stage.put(calls(range(1), "ghost"))

    async def said() -> list[str]:
        asked = (("--request", "call-0"), ("--customer", "ghost", "--at", "0s"), ("unknown-event",))
        results = [await meterbridge(stage, "explain", *words, DATABASE_URL=database) for words in asked]
        assert {one.code for one in results} == {1}
        return [one.err for one in results]

    for sentence in await said():
        assert f"1 call in {stage.topics.raw} is not counted yet" in sentence and "and no meter runs: " in sentence
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 1, limit_s=20)
    for sentence in await said():
        assert f"1 record in {stage.topics.enriched} is not in Postgres yet" in sentence
        assert "and no projector runs: `meterbridge worker --only project`; or " in sentence
        assert "not counted yet" not in sentence
