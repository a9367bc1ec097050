"""Chooses mutants: runs in the environment of the mutation tool (Cosmic Ray), and prints them as JSON.

A mutant is one operator at one place. Which are chosen depends on the seed and the text of the mutant alone, so a change
elsewhere leaves the others in the sample.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast  # type: ignore[import-not-found]
from cosmic_ray.mutating import mutate_code  # type: ignore[import-not-found]
from cosmic_ray.plugins import get_operator  # type: ignore[import-not-found]

#: Operators whose mutants are possible mistakes; types, decorators and shifts are left out.
OPERATORS = (
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_Gt", "Gt_Lt")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_FloorDiv", "FloorDiv_Mul", "Mod_Mul")),
    *("ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_USub_UAdd", "AddNot"),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    *("NumberReplacer", "ZeroIterationForLoop", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
)


def mutants(path: str, source: str) -> Iterator[dict[str, object]]:
    """Every mutant of a file: operator, occurrence and line."""
    tree = get_ast(source)
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        positions = [where for node in ast_nodes(tree) for where in operator.mutation_positions(node)]
        for occurrence, ((line, _), _) in enumerate(positions):
            yield {"file": path, "operator": name, "occurrence": occurrence, "line": line}


def completed(mutant: dict[str, object], source: str) -> dict[str, object] | None:
    """With its text; None if the operator changes nothing that could be a mistake."""
    becomes = mutate_code(source, get_operator(f"core/{mutant['operator']}")(), mutant["occurrence"])
    if becomes is None or becomes == source or not _is_python(becomes):
        return None
    before, after = source.splitlines(), becomes.splitlines()
    line = next(number for number, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1])
    if _means_the_same(before[line], after[line]):
        return None
    return {**mutant, "line": line + 1, "was": before[line].strip(), "becomes": after[line].strip(), "text": becomes}


def _is_python(text: str) -> bool:
    """The tool mistakes `*` between arguments for an operator."""
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _means_the_same(was: str, becomes: str) -> bool:
    """Changes without an effect: a decorator's arguments, such as the size of a cache; a `zip` that no longer checks a
    valid length; a length that numpy computes itself.
    """
    same = was.replace("strict=True", "strict=False"), was.replace("reshape(-1,", "reshape(- 2,")
    return was.lstrip().startswith(("@", "class ")) or becomes in same


def rank(mutant: dict[str, object], source: str, seed: str) -> str:
    """A pseudo-random number, the same for the same mutant."""
    line = source.splitlines()[int(str(mutant["line"])) - 1].strip()
    words = (seed, mutant["file"], mutant["operator"], line, mutant["occurrence"])
    return sha256("\0".join(map(str, words)).encode()).hexdigest()


def main() -> None:
    """Print the chosen mutants."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", required=True)
    parser.add_argument("--most", type=int, default=0, help="0 = all")
    parser.add_argument("files", nargs="+")
    asked = parser.parse_args()
    sources = {name: Path(name).read_text(encoding="utf-8") for name in asked.files}
    every = [mutant for name, source in sources.items() for mutant in mutants(name, source)]
    every.sort(key=lambda mutant: rank(mutant, sources[str(mutant["file"])], asked.seed))
    found: list[dict[str, object]] = []
    for mutant in every:
        if asked.most and len(found) == asked.most:
            break
        if (one := completed(mutant, sources[str(mutant["file"])])) is not None:
            found.append(one)
    json.dump({"of": len(every), "chosen": found}, sys.stdout)


if __name__ == "__main__":
    main()
