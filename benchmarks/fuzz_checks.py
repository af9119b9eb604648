"""What the fuzzer holds every step to: the reference's numbers, and what is promised of any gradient at all."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gradclip
from benchmarks.fuzz_cases import Case
from benchmarks.fuzz_expected import EPS, NEAR, PERCENTILE, Expected, Specification, exact, is_full, is_near, mismatch
from gradclip.backends import chooser, cpu
from tests import reference

__all__ = ["violations"]


@contextmanager
def _backend(kernel: bool) -> Iterator[None]:
    """Have the compiled kernel, or PyTorch's own operations alone."""
    before = cpu._kernel, chooser.KERNELS
    if not kernel:
        cpu._kernel, chooser.KERNELS = None, []
    try:
        yield
    finally:
        cpu._kernel, chooser.KERNELS = before


def violations(case: Case, kernel: bool) -> list[str]:
    """Run one case; return what is wrong in its first wrong step, as ``kind | what``."""
    with _backend(kernel), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        run = _Run(case)
        for step in range(case.steps):
            case.give_gradients(step)
            try:
                found = list(run.step())
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                found = [f"{type(error).__name__} in {place.name} | {error}"]
            if found or run.over:
                return [f"{what} (step {step})" for what in found]
    return []


class _Run:
    """A clipper beside its specification."""

    def __init__(self, case: Case) -> None:
        self.case, self.over = case, False
        self.parameters = list(case.parameters.values())
        self.optimizer = torch.optim.SGD(self.parameters, lr=case.lr)
        self.specification = Specification(case, self.optimizer)
        self.clipper: Any = None

    def step(self) -> Iterator[str]:
        """Clip once, and yield what is wrong."""
        bits = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        before = [None if bit is None else exact(bit) for bit in bits]
        bad = tuple(n for n, g in zip(self.case.parameters, before, strict=True) if g is not None and not np.isfinite(g).all())
        try:
            self.clipper = self.clipper or gradclip.Clipper(self.case.parameters, self.case.clipping, optimizer=self.optimizer)
            result = self.clipper.clip_()
        except (gradclip.NonFiniteGradientError, gradclip.TargetError) as error:
            self.over = True
            yield from self._refused(error, bad, bits)
            return
        yield from self._names(result, bad)
        if result.skipped or (bad and self.case.policy == "propagate"):
            self.over = self.case.policy == "propagate"
            return
        if bad:
            before = [None if g is None else np.where(np.isfinite(g), g, 0) for g in before]
        yield from self._numbers(result, before, bits, bool(bad))

    def _refused(self, error: Exception, bad: tuple[str, ...], bits: list[Tensor | None]) -> Iterator[str]:
        """An error is right where there is something to refuse, and nothing has been changed."""
        if isinstance(error, gradclip.NonFiniteGradientError):
            if self.case.policy != "raise" or error.names != bad:
                yield f"wrong error | {error.names} for {bad}"
        elif not self._may_refuse(bits):
            yield f"refused | {error}"
        if len(self.case.clipping.stages) > 1:  # of a chain, the first method may have been carried out
            return
        for parameter, was in zip(self.parameters, bits, strict=True):
            if was is not None and not _same_bits(parameter.grad, was):
                yield "changed before an error |"

    def _may_refuse(self, bits: list[Tensor | None]) -> bool:
        scopes = [stage.scope for stage in self.case.clipping.stages]
        names, there = list(self.case.parameters), [bit for bit in bits if bit is not None]
        if any(not any(fnmatchcase(n, pattern) for n in names) for scope in scopes for pattern in scope.exclude):
            return True
        if any(isinstance(scope, gradclip.PerUnit) for scope in scopes) and any(bit.is_sparse for bit in there):
            return True
        return any(not s.threshold.symmetric for s in self.case.clipping.stages) and any(bit.is_complex() for bit in there)

    def _names(self, result: Any, bad: tuple[str, ...]) -> Iterator[str]:
        """A step is non-finite where an element is, and a large norm is none."""
        if result.nonfinite_names != bad or bool(result.finite) != (not bad):
            yield f"wrong about NaN and Inf | {result.nonfinite_names} for {bad}, {result!r}"
        skips = bool(bad) and self.case.policy == "skip"
        if result.skipped != skips or (skips and any(p.grad is not None for p in self.parameters)):
            yield f"skipped or not | {result!r}"

    def _numbers(self, result: Any, before: list[Any], bits: list[Tensor | None], zeroed: bool) -> Iterator[str]:
        grads = [np.zeros(p.shape) if g is None else g for p, g in zip(self.parameters, before, strict=True)]
        there = [g is not None for g in before]
        expected = self.specification.step(grads, there, self.clipper.step - 1)
        if expected is None:
            self.over = True
            return
        yield from self._elements(expected, there)
        yield from self._norms(result, grads, there)
        stage, *others = self.case.clipping.stages
        if others or zeroed:
            return
        yield from self._untouched(expected, bits)
        if isinstance(stage.threshold, gradclip.Bounds) and stage.rescale.caps and not stage.scope.exclude:
            yield from self._bounded(stage.threshold.high)
        if stage.rescale.caps and not stage.threshold.stateful:
            yield from self._again()

    def _elements(self, expected: Expected, there: list[bool]) -> Iterator[str]:
        stages = len(self.case.clipping.stages)
        for name, p, want, is_there in zip(self.case.parameters, self.parameters, expected.grads, there, strict=True):
            if p.grad is None:
                if is_there and (want.any() or not expected.dropped):
                    yield f"a gradient is gone | {name}"
                continue
            got = exact(p.grad)
            what = mismatch(got, want, p.dtype, expected.loose, 1 if stages == 1 else 2 * stages, expected.gain)
            if what:
                yield f"{'off' if np.isfinite(got).all() else 'not finite'} | {name} {what}"

    def _norms(self, result: Any, grads: list[Any], there: list[bool]) -> Iterator[str]:
        norm = self.case.clipping.stages[-1].norm
        each = [reference.norm_of(g, norm) if is_there else 0.0 for g, is_there in zip(grads, there, strict=True)]
        for name, got, want in zip(result.names, result.tensor_norms.tolist(), each, strict=True):
            if not (got == want or abs(got - want) <= 1e-6 * want + 1e-323):
                yield f"wrong norm | {name} {got} for {want}"
        if not result.nonfinite_names and each[result.names.index(result.worst)] < max(each) * (1 - 1e-6) - 1e-323:
            yield f"wrong worst | {result.worst} for {each}"

    def _untouched(self, expected: Expected, bits: list[Tensor | None]) -> Iterator[str]:
        """Where every block is below its limit, every bit stays."""
        first, rule = expected.first, self.case.clipping.stages[0].threshold
        share = 2 * PERCENTILE if isinstance(rule, gradclip.Percentile) else NEAR
        blocks = zip(first.factors, first.block_norms, first.limits, strict=True)
        if all(f == 1 and not is_near(n, t, share) for f, n, t in blocks):
            for name, p, was in zip(self.case.parameters, self.parameters, bits, strict=True):
                if was is not None and p.grad is not None and not _same_bits(p.grad, was):
                    yield f"changed below the limit | {name}"

    def _bounded(self, high: float) -> Iterator[str]:
        """No complex element is larger than its bound, by not the last place."""
        for name, p in self.case.parameters.items():
            if p.grad is not None and p.is_complex() and np.abs(exact(p.grad)).max(initial=0) > high * (1 + 2.0**-52):
                yield f"beyond its bound | {name}"

    def _again(self) -> Iterator[str]:
        """Clipping twice is clipping once, to rounding; where that is of another dtype, norms may change by as much."""
        once = [np.zeros(0) if p.grad is None else exact(p.grad) for p in self.parameters]
        dtypes = [p.dtype for p in self.parameters]
        if not is_full(once, dtypes):
            return
        gradclip.Clipper(self.case.parameters, self.case.clipping, optimizer=self.optimizer).clip_()
        for name, p, was in zip(self.case.parameters, self.parameters, once, strict=True):
            if p.grad is not None:
                what = mismatch(exact(p.grad), was, p.dtype, 1e-13 + max(EPS[dtype] for dtype in dtypes), 4)
                if what:
                    yield f"not idempotent | {name} {what}"


def _same_bits(one: Tensor | None, other: Tensor) -> bool:
    if one is None:
        return False
    a, b = (t.coalesce().to_dense() if t.is_sparse else t for t in (one, other))
    a, b = (torch.view_as_real(t.resolve_conj()) if t.is_complex() else t.resolve_neg() for t in (a, b))
    return torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
