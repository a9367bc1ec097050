"""Severity, cause and fix of the findings about LiteLLM's version; the catalogue makes its kinds of them."""

from typing import Final

#: By code; the severity is a value of `catalogue.Severity`.
VERSION_TEXTS: Final = {
    "version_loses": (
        "money_lost",
        (
            "This version of LiteLLM, or the tried versions next to it, report some kinds of calls without their cost, with less, or not at "
            "all. A later version reports them ([litellm-versions.md](litellm-versions.md))."
        ),
        "Upgrade LiteLLM to the version in the finding, if you have such calls.",
    ),
    "version_exceeds": (
        "money_doubled",
        (
            "This version of LiteLLM, or the tried versions next to it, report a higher cost than the provider charges for some kinds of "
            "calls. A later version does not ([litellm-versions.md](litellm-versions.md))."
        ),
        "Upgrade LiteLLM to the version in the finding, if you have such calls.",
    ),
    "version_unknown": (
        "degraded",
        "This version of LiteLLM was not tried with each kind of call. A release can change what a field means, or which field has it.",
        (
            'Run `make litellm-matrix ARGS="--version VERSION"` in a clone of the repository: it tries the version and shows what differs. '
            "Or use a version that was tried ([litellm-versions.md](litellm-versions.md))."
        ),
    ),
    "version_known": (
        "ok",
        (
            "This version of LiteLLM was tried with each kind of call, and each sum was compared with what was owed. What is named as not "
            "billed as owed is so in the newest tried version too, unless another finding names it."
        ),
        "Nothing.",
    ),
}
