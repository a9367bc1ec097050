"""Tab completion: the script that a shell loads, run in bash, and the answers to the other shells."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
#: What bash does when Tab is pressed after the words `$@`: it calls the registered function, as in the script.
PRESS_TAB = """
source <(meterbridge completion bash)
[[ $(complete -p meterbridge) =~ -F\\ ([^ ]+) ]] || exit 3
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"${BASH_REMATCH[1]}" meterbridge
printf '%s\\n' "${COMPREPLY[@]}"
"""


def run_completion(*words: str, **variables: str) -> list[str]:
    done = subprocess.run(words, env={"PATH": PATH, **variables}, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["reco"], {"reconcile", "recover"}),
        (["lago"], {"lago", "lago-sandbox"}),
        (["held", ""], {"list", "write-off"}),
        (["held", "write-off", "--ma"], {"--match"}),
        (["backfill", "--source", ""], {"litellm-db", "jsonl", "csv"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, list) else "",
)
def test_in_bash_tab_completes_commands_options_and_choices(words: list[str], completed: set[str]) -> None:
    assert set(run_completion("bash", "--norc", "-c", PRESS_TAB, "bash", "meterbridge", *words)) == completed


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_ask_in_the_form_that_is_answered(shell: str) -> None:
    assert f"_METERBRIDGE_COMPLETE=complete_{shell} " in "\n".join(run_completion("meterbridge", "completion", shell))
    asked = {"_METERBRIDGE_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    answer = "\n".join(run_completion("meterbridge", _TYPER_COMPLETE_ARGS="meterbridge rec", **asked))
    assert "reconcile" in answer and "held" not in answer
