"""Every command that needs Kafka, while Kafka is unavailable: one sentence with the address and its setting, and exit
code 1.
"""

import asyncio
import os
from pathlib import Path

import pytest

from tests.support.command import ended, meterbridge
from tests.support.ports import free_port
from tests.support.stage import Stage

#: `{file}` is a file of that ending.
COMMANDS = (
    "topics create",
    "topics check --json",
    "held list",
    "held write-off --customer acme --comment test",
    "ledger init --from latest --partition 0",
    "reconcile",
    "reconcile --lago --json",
    "replay --from 2h --to 1h --dry-run",
    "replay --from 2h --to 1h",
    "dlq list",
    "dlq show events/0/1",
    "dlq requeue --reason lago_refused",
    "dlq dismiss --reason lago_refused --comment test",
    "import mappings {csv}",
    "import customers {csv}",
    "migrate-orgs --mapping-file {json} --execute",
    "backfill --source jsonl --file {jsonl}",
    "lago rebill --comment test",
    "keys create --name n --scope *",
)
FILES = {
    "csv": "litellm_customer_id,lago_customer_id,lago_organization_id,org_id\na,b,c,d\n",
    "json": '[{"user_id":"u","org_id":"o"}]',
    "jsonl": '{"id":"1","user":"u","model":"m","spend":1,"startTime":1795000000,"endTime":1795000001,"total_tokens":1}\n',
}


async def output_of(command: str, environ: dict[str, str]) -> tuple[int, str]:
    result = await ended(environ, *command.split(), limit_s=180)
    return result.code, result.err


async def test_a_command_without_kafka_is_one_sentence(tmp_path: Path, database: str) -> None:
    """No traceback and no text of a library: an operator can change the address or the broker."""
    address = f"127.0.0.1:{free_port()}"
    environ = {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "DATABASE_URL": database,
        "LAGO_API_URL": f"http://127.0.0.1:{free_port()}",
        "LAGO_API_KEY": "key",
    }
    files = {ending: tmp_path / f"rows.{ending}" for ending in FILES}
    for ending, text in FILES.items():
        files[ending].write_text(text)
    few = asyncio.Semaphore(10)  # they wait, mostly

    async def one(command: str) -> tuple[int, str]:
        async with few:
            return await output_of(command.format(**files), environ)

    answers = dict(zip(COMMANDS, await asyncio.gather(*map(one, COMMANDS)), strict=True))
    sentence = f"meterbridge: Kafka does not answer at KAFKA_BOOTSTRAP_SERVERS={address}"
    wrong = {
        command: (code, result)
        for command, (code, result) in answers.items()
        if code != 1 or len(result.splitlines()) != 1 or not result.startswith(sentence)
    }
    assert wrong == {}


#: A client waits 40 seconds for a topic or a partition that does not exist, and then says that Kafka does not answer.
OF_LEDGERS = (
    "held list",
    "held write-off --customer acme --comment test",
    "reconcile",
    "ledger rebuild --comment test",
)


@pytest.mark.parametrize(
    "command", [*OF_LEDGERS, "ledger init --from latest --comment test", "dlq list", "audit verify"]
)
async def test_a_command_names_the_topic_that_is_missing_and_what_to_do(stage: Stage, command: str) -> None:
    ended_ = await meterbridge(stage, *command.split(), TOPIC_PREFIX="none.")
    assert ended_.code == 1
    assert ended_.err.startswith("meterbridge: There are topics of ")  # of this test, and of others
    assert "and none of TOPIC_PREFIX=none., which is set now: correct TOPIC_PREFIX. " in ended_.err
    assert len(ended_.err.splitlines()) == 1


@pytest.mark.parametrize("command", OF_LEDGERS)
@pytest.mark.parametrize("more", [-1, 1])
async def test_a_command_refuses_another_number_of_partitions_than_the_topics_have(
    stage: Stage, command: str, more: int
) -> None:
    """With fewer it would leave out ledgers without a word."""
    wrong = str(stage.settings.kafka_partitions + more)
    ended_ = await meterbridge(stage, *command.split(), KAFKA_PARTITIONS=wrong)
    assert (ended_.code, len(ended_.err.splitlines())) == (1, 1)
    assert f"partitions where {wrong} are expected: set KAFKA_PARTITIONS" in ended_.err
