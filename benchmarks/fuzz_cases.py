"""What the fuzzer makes of a number: parameters, their gradients at every step, and a recipe."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

import gradclip
from gradclip import Clipping
from gradclip.recipes import RECIPES

__all__ = ["MAKERS", "Case"]

NAMES = ("encoder.weight", "encoder.bias", "head.weight", "head.bias", "gain")
SHAPES = [(), (1,), (3,), (7,), (0,), (0, 3), (2, 3), (5, 1), (3, 4), (2, 2, 2), (4, 2, 3)]
LARGE = [(40,), (17, 9), (300,), (33, 64)]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]
NORMS = [1, 2, 2, 2, 3, 0.5, 1.5, 8, "inf", "rms"]
POLICIES = ["skip", "raise", "zero", "propagate"]


class Case:
    """One run of the fuzzer, all of it from a number."""

    def __init__(self, number: int) -> None:
        self.number, self.rng = number, random.Random(number)
        rng = self.rng
        self.recipe = rng.choice([*RECIPES, "chain", "point"])
        alike = rng.choice(DTYPES) if rng.random() < 0.5 else None
        large = self.recipe not in ("spam", "value", "chain", "point") and rng.random() < 0.1
        shapes = [rng.choice(LARGE if large else SHAPES) for _ in range(rng.randint(1, len(NAMES)))]
        self.mode = rng.choice(["usual", "any", "top", "bottom", "mixed", "mixed", "each"])
        self.parameters: dict[str, nn.Parameter] = {}
        for name, shape in zip(NAMES, shapes, strict=False):
            self.parameters[name] = nn.Parameter(self._values(shape, alike or rng.choice(DTYPES), "usual"))
        self.policy = rng.choice(POLICIES)
        self.lr = round(10.0 ** rng.uniform(-4, 1), 6)
        self.first = [self._gradient(p) for p in self.parameters.values()]
        self.clipping = self._method()
        stateful = any(stage.threshold.stateful for stage in self.clipping.stages)
        self.steps = rng.randint(2, 14 if self.recipe == "auto" else 6) if stateful else 1
        self.tensors = 0

    def __str__(self) -> str:
        lines = [f"case {self.number}: {self.clipping}, {self.mode}, lr {self.lr:g}"]
        for name, parameter, grad in zip(self.parameters, self.parameters.values(), self.first, strict=True):
            shown = "no gradient" if grad is None else f"{grad.layout} {grad.stride() if grad.layout == torch.strided else ''}"
            few = "" if grad is None or grad.numel() > 12 else grad.to_dense().resolve_conj().resolve_neg().tolist()
            lines.append(f"  {name} {tuple(parameter.shape)} {parameter.dtype} {shown} {few}")
        return "\n".join(lines)

    def give_gradients(self, step: int) -> None:
        """Put the gradients of a step in place."""
        made = self.first if step == 0 else [self._gradient(p) for p in self.parameters.values()]
        for parameter, grad in zip(self.parameters.values(), made, strict=True):
            parameter.grad = grad
            self.tensors += grad is not None

    # -- gradients

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype, mode: str) -> Tensor:
        """Normal numbers, times powers of ten that the dtype can hold."""
        rng, info = self.rng, torch.finfo(dtype)
        generator = torch.Generator().manual_seed(rng.getrandbits(40))
        wide = torch.complex128 if dtype.is_complex else torch.float64
        values = torch.randn(shape, dtype=wide, generator=generator)
        least, most = math.log10(info.smallest_normal * info.eps), math.log10(info.max)
        if mode == "mixed":
            powers = least + (most - least) * torch.rand(shape, dtype=torch.float64, generator=generator)
        else:
            ends = {"usual": (-2, 2), "any": (least, most), "top": (most - 1.5, most), "bottom": (least, least + 3)}
            powers = torch.full(shape, rng.uniform(*ends[mode]), dtype=torch.float64)
        half = (powers / 2).clamp(max=most / 2)
        values = values * 10.0**half * 10.0**half
        parts = torch.view_as_real(values) if values.is_complex() else values
        parts = torch.where(parts.isnan(), 1.0, parts.clamp(-info.max, info.max))
        if rng.random() < 0.1:
            parts = torch.where(torch.rand(parts.shape, generator=generator) < 0.5, 0.0, parts)
        return (torch.view_as_complex(parts) if values.is_complex() else parts).to(dtype)

    def _gradient(self, parameter: nn.Parameter) -> Tensor | None:
        rng = self.rng
        if rng.random() < 0.1:
            return None
        mode = rng.choice(["usual", "any", "top", "bottom", "mixed"]) if self.mode == "each" else self.mode
        values = self._values(tuple(parameter.shape), parameter.dtype, mode)
        if rng.random() < 0.03 and values.numel():
            values.view(-1)[rng.randrange(values.numel())] = rng.choice([math.nan, math.inf, -math.inf])
        return self._laid_out(values)

    def _laid_out(self, values: Tensor) -> Tensor:
        """The same values or some of them, in other memory."""
        rng = self.rng
        match rng.choice(["plain"] * 6 + ["turned", "stepped", "expanded", "sparse", "negative"]):
            case "turned" if values.dim() > 1:
                return values.transpose(0, -1).contiguous().transpose(0, -1)
            case "stepped" if values.dim():
                return torch.stack([values, values], dim=-1)[..., 0]
            case "expanded" if values.dim() and values.shape[0]:
                return values[:1].expand(values.shape)
            case "sparse" if values.dim() and values.shape[0]:
                rows = torch.tensor([[rng.randrange(values.shape[0]) for _ in range(rng.randint(0, values.shape[0]))]])
                rows = rows.long()
                return torch.sparse_coo_tensor(rows, values[rows[0]], values.shape, check_invariants=True)
            case "negative":
                return torch._neg_view(-values)
        return values

    # -- recipes

    def _size(self) -> float:
        """A threshold: near some norm of the gradients, or anything at all."""
        rng = self.rng
        if rng.random() < 0.25:
            return float(f"{10.0 ** rng.uniform(-320, 308):.3g}") or 5e-324
        known = [g for g in self.first if g is not None and g.numel()]
        size = 1.0
        if known and rng.random() < 0.9:
            grad = rng.choice(known).to_dense()
            parts = torch.view_as_real(grad.resolve_conj()) if grad.is_complex() else grad
            size = float(parts.double().abs().max())
        size = min(size * 10.0 ** rng.uniform(-3, 3), 1e308) if size < math.inf else 1.0
        return float(f"{size:.3g}") or 1e-30

    def _patterns(self) -> dict[str, float]:
        return {"encoder.*": self._size(), "*": self.rng.choice([self._size(), math.inf])}

    def _method(self) -> Clipping | gradclip.Chain:
        if self.recipe == "chain":
            return gradclip.Chain(*(self._one(self.rng.choice(list(RECIPES))) for _ in range(self.rng.randint(2, 3))))
        return self._one(self.recipe)

    def _one(self, name: str) -> Clipping | gradclip.Chain:
        rng = self.rng
        common = {"exclude": rng.choice([*[()] * 5, "encoder.*", "*.w?ight"]), "nonfinite": self.policy}
        return _point(self, common) if name == "point" else MAKERS[name](self, common)


def _norm(case: Case) -> object:
    return case.rng.choice(NORMS)


def _value(case: Case, common: dict[str, object]) -> Clipping:
    if case.rng.random() < 0.5:
        return gradclip.value(case._size(), **common)
    return gradclip.value(-case._size(), case.rng.choice([0.0, case._size()]), **common)


def _group_norm(case: Case, common: dict[str, object]) -> Clipping:
    return gradclip.group_norm(case._patterns(), norm=_norm(case), **common)


def _moving(case: Case) -> object:
    a, b = case._size(), case._size()
    return case.rng.choice([a, a, a, gradclip.Linear(a, b, 5), gradclip.Cosine(a, b, 3)])


MAKERS: dict[str, Callable[[Case, dict[str, object]], Clipping | gradclip.Chain]] = {
    "global_norm": lambda c, a: gradclip.global_norm(_moving(c), _norm(c), **a),
    "value": _value,
    "tensor_norm": lambda c, a: gradclip.tensor_norm(c._size(), _norm(c), **a),
    "group_norm": _group_norm,
    "block_rms": lambda c, a: gradclip.block_rms(c._size(), **a),
    "normalize": lambda c, a: gradclip.normalize(c._size(), _norm(c), c.rng.choice([False, False, True, 0.5, 2.0, 8.0]), **a),
    "agc": lambda c, a: gradclip.agc(
        10.0 ** c.rng.uniform(-30, 1), 10.0 ** c.rng.uniform(-9, 0), c.rng.choice([None, None, 0, -1]), **a
    ),
    "trust": lambda c, a: gradclip.trust(10.0 ** c.rng.uniform(-6, 1), 10.0 ** c.rng.uniform(-9, 0), c.rng.random() < 0.5, **a),
    "autoclip": lambda c, a: gradclip.autoclip(c.rng.uniform(1, 100), **a),
    "quantile": lambda c, a: gradclip.quantile(c.rng.uniform(0.1, 1), c.rng.randint(1, 9), c.rng.random() < 0.5, **a),
    "zclip": lambda c, a: gradclip.zclip(
        c.rng.uniform(0.1, 3), c.rng.uniform(0.1, 0.99), 2, c.rng.choice([math.inf, c._size()]), **a
    ),
    "adagc": lambda c, a: gradclip.adagc(c.rng.uniform(0.5, 2), c.rng.uniform(0.1, 0.99), c.rng.randint(1, 3), c._size(), **a),
    "aggc": lambda c, a: gradclip.aggc(
        c.rng.uniform(1, 2), c.rng.uniform(0, 1), c.rng.uniform(0.1, 0.99), c.rng.choice([("*",), ("encoder.*", "*")]),
        c.rng.choice([10.0, 1e30, math.inf]), **a
    ),
    "spam": lambda c, a: gradclip.spam(c.rng.uniform(0.5, 5000), c.rng.uniform(0.1, 0.999), c.rng.randint(1, 2), **a),
    "norm_growth": lambda c, a: gradclip.norm_growth(c.rng.uniform(1, 3), c.rng.uniform(0.001, 0.5), **a),
    "skip_step": lambda c, a: gradclip.skip_step(c.rng.uniform(0.5, 6), 4, 2, **a),
    "stable_spam": lambda c, a: gradclip.stable_spam(*(c.rng.uniform(0.1, 0.99) for _ in range(3)), **a),
    "auto": lambda c, a: gradclip.auto(10.0 ** c.rng.uniform(-3, 0), c.rng.uniform(1, 4), 10, **a),
}  # fmt: skip
"""Every recipe with any arguments. One that is new has its defaults until it is named here."""
for _name in set(RECIPES) - set(MAKERS):
    MAKERS[_name] = lambda c, a, name=_name: RECIPES[name].build(**a)  # type: ignore[misc]


def _point(case: Case, common: dict[str, object]) -> Clipping:
    """A point of the algebra that need have no name."""
    rng, exclude = case.rng, common["exclude"]
    scope = rng.choice([gradclip.Global, gradclip.PerTensor, gradclip.PerUnit, gradclip.PerElement])(exclude)
    rescale = rng.choice(
        [gradclip.Hard(), gradclip.Soft(), gradclip.Soft(2.0), gradclip.Normalize(), gradclip.Band(0.5, 10.0),
         gradclip.Band(1.0, 1e300), gradclip.Drop(), gradclip.Clamp()]
    )  # fmt: skip
    norm = _norm(case)
    if rescale == gradclip.Clamp():
        scope, norm = rng.choice([gradclip.Global, gradclip.PerTensor])(exclude), "inf"
    return Clipping(scope, norm, _moving(case), rescale, common["nonfinite"])
