"""What docs/litellm-versions.md says beside its tables."""

HEAD = """\
# LiteLLM's versions, one by one

<!-- Written by `python -m tests.litellm_matrix --write` from tests/fixtures/litellm_versions; do not edit it by hand. -->

{count} kinds of calls were made through real LiteLLM proxies of the versions {versions}, to a provider on loopback that keeps account of what it
charges. The proxies posted to the product's ingress, and its meter decided about each call. The tables show, in cents, what is billed where that is
what is owed, and **what is billed** of what is owed where it is not.

- *Owed* is what the provider charged, at its public prices, if nothing else is said of a scenario.
- Amounts within 0.01 cent are the same: where no usage is told LiteLLM counts the tokens of a stream itself.
- The configuration is [the recommended one](litellm.md#set-it-up), without a database. Keys come from a `custom_auth`. So nothing that needs
  LiteLLM's database is tried here; `make trial` tries a database.
- `meterbridge doctor` looks up the version of a proxy in these results ([doctor.md](doctor.md#litellms-version)).

`make litellm-matrix` runs the newest of these versions again and shows what differs from its recording; `ARGS="--version 1.111.0"` tries another version
and shows how it differs from {newest}; `ARGS="--version 1.111.0 --record"` records it. `ARGS="--plant doubled_cost"` changes what LiteLLM reports: the run must
then fail (`--help` names all changes). Each version has an environment of its own in `~/.cache/meterbridge-litellm`.
"""

CHAPTERS = {
    "chat": "Chat completions",
    "kinds": "Other kinds of calls",
    "faults": "Calls that fail on their way",
    "who": "Whose call it is",
    "delivery": "How the calls are posted",
}

#: Why a scenario cannot be run: by the scenario and the last version for which that is so, or `all`.
NOT_POSSIBLE: dict[tuple[str, str], str] = {}

#: What a reader should know of a scenario.
NOTES: dict[str, str] = {
    "stream-left": "What the provider has made by then is owed. LiteLLM counts it itself, since no usage comes.",
    "stream-cut": "As above; LiteLLM reports it as `failure`. Where it has no cost the provider's charge is lost.",
    "free-price": "A price of 0 looks like no price: the calls are `unpriced`, and nothing is owed.",
    "price-beside": "Up to 1.85 LiteLLM takes the price of one deployment for all deployments of the same model: a free one makes the others free. What they use is "
    "`unpriced`, and not billed.",
    "no-price": "Nothing is billed until LiteLLM or a [rate card](rates.md) has a price. The calls are `unpriced`, and counted.",
    "same-call-id": "LiteLLM up to 1.83 reports no call id at all.",
    "pass-own": "LiteLLM reads no usage of a provider that it does not know by the address. The call is `zero_cost`, and nothing is billed for it.",
    "timeout": "The provider answers too late, and charges nothing here. One that charges for such an answer cannot be billed for: LiteLLM does not know of it.",
    "guard-after": "The provider was paid for an answer that the client did not get.",
    "spoofed-price": "LiteLLM 1.81 takes a price in a request, and keeps it for every later call of that model through the process: one client makes a model free for "
    "all, `unpriced`. Later versions refuse such a request, or ignore the price.",
    "outage": "Versions without `max_retries` (before 1.96) lose what they cannot post at once. Before 1.108 calls are lost as in `race`, so how many arrive depends on "
    "moments: where a version is recorded with less than what is owed, its number is not compared.",
    "race": "Before 1.108 calls are lost that end while LiteLLM waits for the endpoint. How many depends on moments, so a run is not compared in this. The other "
    "scenarios are judged as if nothing had been lost this way.",
    "sigterm": "LiteLLM does not post its queue at SIGTERM, and not all of it is there at the next start. Wait before the signal ([litellm.md](litellm.md#set-it-up)), or "
    "use [the plugin](litellm-plugin.md).",
    "plugin": "LiteLLM 1.85 and older need a file beside `config.yaml` ([litellm-plugin.md](litellm-plugin.md#install-it)); the matrix has it for all versions.",
}
