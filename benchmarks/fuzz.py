"""Random gradients through every recipe, with the compiled kernel and without it, compared with the reference.

    python -m benchmarks.fuzz                                # a minute of it
    python -m benchmarks.fuzz --seconds 600 --seed 1000000   # other cases
    python -m benchmarks.fuzz --case 123                     # one case, and what is wrong with it

Every case has a number, which makes all of it: a few parameters of any dtype, shape and layout, whose gradients are of any
size that their dtype can hold, from its smallest number to its largest, alike or mixed, some of them missing, some with a NaN
or an Inf; a recipe with any arguments; and one step, or several where the recipe learns. ``tests/properties/test_fuzz.py``
runs the first of them.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import torch

from benchmarks.fuzz_cases import Case
from benchmarks.fuzz_checks import violations

__all__ = ["run_case"]


def run_case(number: int) -> tuple[Case, list[str]]:
    """Run one case with the kernel and without it; return it, and what is wrong with it in a sentence each."""
    found = []
    for kernel in (True, False):
        case = Case(number)
        found += [f"{'with' if kernel else 'without'} the kernel: {what}" for what in violations(case, kernel)]
    return case, found


def main() -> None:
    """Run cases until the time is over, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first case")
    parser.add_argument("--case", type=int, help="run this one alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.case is not None:
        _, found = run_case(options.case)
        print(Case(options.case), *found or ["nothing is wrong"], sep="\n")
        return
    end, number = time.monotonic() + options.seconds, options.seed
    tensors: Counter[str] = Counter()
    kinds: dict[str, tuple[int, str]] = {}
    wrong = 0
    while time.monotonic() < end:
        case, found = run_case(number)
        tensors[case.recipe] += case.tensors
        wrong += bool(found)
        for what in found:
            kinds.setdefault(f"{case.recipe}: {what.split(' |')[0]}", (number, what))
        number += 1
    for kind, (first, what) in kinds.items():
        print(f"{kind}\n    {what}\n    python -m benchmarks.fuzz --case {first}")
    print(", ".join(f"{name} {count:,}" for name, count in sorted(tensors.items())))
    found_in = f"{wrong} cases with violations, {len(kinds)} kinds"
    print(f"cases {options.seed} to {number - 1}: {tensors.total():,} gradients, {found_in}")


if __name__ == "__main__":
    main()
