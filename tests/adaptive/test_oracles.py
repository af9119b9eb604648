"""The rules against other people's implementations, over a thousand spiky steps; where they depart, that is asserted."""

from __future__ import annotations

import math

import numpy as np
import optax
import pytest
import torch
from torch import nn

from gradclip import thresholds
from gradclip.thresholds import Context
from tests.adaptive.support import run, run_numpy, spiky_norms

zclip = pytest.importorskip("zclip")
autoclip = pytest.importorskip("autoclip.torch")
pytorch_optimizer = pytest.importorskip("pytorch_optimizer")


def scalars(count: int) -> list[nn.Parameter]:
    """Parameters of one element, so that a norm is a gradient."""
    return [nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(count)]


def put(parameters: list[nn.Parameter], norms: np.ndarray) -> None:
    """Make the gradients have these norms; 0 is no gradient."""
    for parameter, n in zip(parameters, norms, strict=True):
        parameter.grad = torch.tensor([n], dtype=torch.float64) if n else None


def states(rule, norms: np.ndarray):
    """The limits and the state after every step."""
    state = rule.init(norms[0])
    for step, row in enumerate(norms):
        limits, state = rule.limits(row, state, Context(step))
        yield limits, state


class TestZclip:
    def pair(self, cap: float | None, eps: float = 0.0):
        model = nn.ParameterList(scalars(1))
        return model, zclip.ZClip(max_grad_norm=cap, eps=eps), thresholds.ZScore(cap=cap or math.inf)

    @pytest.mark.parametrize("cap", [None, 1.0])
    def test_a_thousand_steps(self, cap):
        model, theirs, rule = self.pair(cap)
        norms = spiky_norms(blocks=1, zeros=0)
        clipped = 0
        for (n,), (limits, state) in zip(norms, states(rule, norms), strict=True):
            put(list(model), [n])
            theirs.step(model)
            factor = min(1.0, float(limits[0]) / (n + 1e-6)) if n > limits[0] else 1.0  # their coefficient has an eps
            assert float(model[0].grad) == pytest.approx(n * factor, rel=1e-11)
            clipped += factor < 1
            if theirs.initialized:
                assert float(state["mean"][0]) == pytest.approx(theirs.mean, rel=1e-11)
                assert float(state["deviation"][0]) ** 2 == pytest.approx(theirs.var, rel=1e-9)
        assert clipped > 20

    def test_departure_norms_below_its_eps(self):
        model, theirs, rule = self.pair(None, eps=1e-6)
        norms = spiky_norms(blocks=1, zeros=0) * 1e-9
        last = run_numpy(rule, norms)
        for n in norms[:, 0]:
            put(list(model), [n])
            theirs.step(model)
            assert float(model[0].grad) == n  # never clipped
        assert (norms > last).sum() > 20

    def test_departure_one_nan_disables_the_original(self):
        model, theirs, _ = self.pair(None)
        for n in [*spiky_norms(60, 1, zeros=0)[:, 0], math.nan, 1e9]:
            put(list(model), [n])
            theirs.step(model)
        assert float(model[0].grad) == 1e9

    def test_departure_steps_without_a_gradient(self):
        """The original counts them as norms of 0, which widens the spread; here they are no steps."""
        norms = spiky_norms(60, 1, zeros=0)
        with_zeros = np.insert(norms, range(0, 60, 2), 0.0, axis=0)
        model, theirs, rule = self.pair(None)
        for n in with_zeros[:, 0]:
            put(list(model), [n])
            theirs.step(model)
        _, state = run(rule, with_zeros)
        assert state["mean"] == run(rule, norms)[1]["mean"]
        assert theirs.mean < 0.8 * float(state["mean"][0])


class TestAutoclip:
    @pytest.mark.parametrize("whole", [True, False])
    @pytest.mark.parametrize(("q", "window"), [(0.9, 1000), (0.5, 30)])
    def test_a_thousand_steps(self, q, window, whole):
        norms = spiky_norms(blocks=1 if whole else 3, zeros=0 if whole else 0.05)
        parameters = scalars(norms.shape[1])
        theirs = autoclip.QuantileClip(parameters, quantile=q, history_length=window, global_threshold=whole)
        for row, limits in zip(norms, run_numpy(thresholds.Quantile(q, window), norms), strict=True):
            put(parameters, row)
            theirs.step()
            for n, limit, parameter in zip(row, limits, parameters, strict=True):
                if n:
                    assert float(parameter.grad) == pytest.approx(n * min(1, limit / (n + 1e-6)), rel=1e-11)

    def test_departure_steps_without_a_gradient(self):
        """The original puts zeros into its global history, and then clips everything to nothing."""
        (parameter,) = scalars(1)
        theirs = autoclip.QuantileClip([parameter], quantile=0.5, global_threshold=True)
        for n in [0.0, 0.0, 0.0, 1.0]:
            put([parameter], [n])
            theirs.step()
        assert float(parameter.grad) == 0.0
        assert run_numpy(thresholds.Quantile(0.5), np.array([[0.0], [0.0], [0.0], [1.0]]))[-1] == math.inf


class TestAdagc:
    WARMUP = 100  # the original begins to clip at step 100, which is after 99 steps

    def run(self, norms: np.ndarray, foreach: bool):
        parameters = scalars(norms.shape[1])
        theirs = pytorch_optimizer.AdaGC(parameters, warmup_steps=self.WARMUP, weight_decay=0.0, eps=0.0, foreach=foreach)
        for row in norms:
            put(parameters, row)
            theirs.step()
            yield [float(theirs.state[p]["gamma"]) if "gamma" in theirs.state[p] else math.inf for p in parameters]

    @pytest.mark.parametrize("foreach", [True, False])
    def test_a_thousand_steps(self, foreach):
        norms = spiky_norms()
        norms[:150, 2] = 0.0  # a tensor whose first gradient comes after the warm-up
        rule = thresholds.EmaRatio(1.05, 0.98, self.WARMUP - 1, floor=1e-300)
        for gammas, (_, state) in zip(self.run(norms, foreach), states(rule, norms), strict=True):
            np.testing.assert_allclose(state["ema"], gammas, rtol=2e-7)  # their global norm is summed in float32

    def test_departure_a_near_zero_step_in_the_warm_up(self):
        norms = np.ones((500, 1)) * 0.5
        norms[3] = 1e-10
        *_, (gamma,) = self.run(norms, False)
        assert gamma < 2e-10
        _, state = run(thresholds.EmaRatio(1.05, 0.98, self.WARMUP - 1), norms)
        assert float(state["ema"][0]) > 0.005


class TestSpam:
    WARMUP = 20  # the original begins to clip at step 20, which is after 19 steps

    def original(self, size: int, beta: float = 0.999):
        parameter = nn.Parameter(torch.ones(size, dtype=torch.float64))
        theirs = pytorch_optimizer.SPAM([parameter], betas=(0.9, beta), threshold=50, update_proj_gap=10**9, foreach=False)
        return parameter, theirs

    def test_a_thousand_steps(self):
        norms = spiky_norms(zeros=0)
        parameter, theirs = self.original(norms.shape[1])
        rule = thresholds.SecondMoment(50, 0.999, self.WARMUP - 1)
        clipped = 0
        for row, (limits, state) in zip(norms, states(rule, norms), strict=True):
            parameter.grad = torch.from_numpy(row.copy())
            theirs.step()
            np.testing.assert_allclose(parameter.grad, np.minimum(row, limits), rtol=1e-12)
            np.testing.assert_allclose(state["rms"] ** 2, theirs.state[parameter]["exp_avg_sq"], rtol=1e-11)
            clipped += (row > limits).sum()
        assert clipped > 20

    def test_departure_elements_without_a_gradient(self):
        norms = np.array([[1.0]] * 30 + [[0.0]] * 1500 + [[1.0]])
        parameter, theirs = self.original(1, 0.99)
        for row in norms:
            parameter.grad = torch.from_numpy(row.copy())
            theirs.step()
        assert float(parameter.grad) < 0.01  # forgotten, and then clipped to nothing
        assert run_numpy(thresholds.SecondMoment(50, 0.99), norms)[-1] > 1


class TestTrust:
    @pytest.mark.parametrize("eta", [0.02, 0.3])
    def test_as_optax_scales_where_it_binds(self, eta):
        """LARC clips where LARS scales: the factor is LARS's trust ratio over lr, at most 1."""
        rng = np.random.default_rng(0)
        lars = optax.scale_by_trust_ratio(trust_coefficient=eta)
        rule = thresholds.Trust(eta, floor=1e-12)
        bound = 0
        for norm, lr in zip(spiky_norms(50, 1)[:, 0], 10 ** rng.uniform(-3, 1, 50), strict=True):
            weights, grads = rng.standard_normal(7), rng.standard_normal(7).astype(np.float32)
            grads *= (norm or 1) / np.linalg.norm(grads)
            scaled, _ = lars.update(grads, lars.init(grads), weights.astype(np.float32))
            size = np.array([np.linalg.norm(grads)])
            limits, _ = rule.limits(size, {}, Context(0, np.array([np.linalg.norm(weights)]), np.array([lr])))
            factor = min(1.0, float(limits[0] / size[0]))
            np.testing.assert_allclose(grads * factor, grads * np.minimum(1, np.asarray(scaled / grads) / lr), rtol=1e-5)
            bound += factor < 1
        assert 0 < bound < 50


class TestSkipStep:
    """OLMo-core's optimizer is not a package of its own; its rule, written out, and what departs from it."""

    @staticmethod
    def kept(norms: list[float], length: int = 128) -> bool:
        """Whether the original takes the last step."""
        recent = torch.tensor(norms[-length - 1 :], dtype=torch.float64)
        if len(recent) < max(20, length // 2):
            return True
        std, mean = torch.std_mean(recent[:-1])
        return bool((recent[-1] - mean).abs() / std <= 6)

    def test_a_run_until_its_first_outlier(self):
        norms = np.exp(0.2 * np.random.default_rng(0).standard_normal(300))
        norms[250] = 30.0
        limits = run_numpy(thresholds.Outlier(), norms[:, None])[:, 0]
        for i in range(251):
            assert self.kept(list(norms[: i + 1])) == (norms[i] <= limits[i])
        assert norms[250] > limits[250]

    def test_departures(self):
        norms = list(np.exp(0.05 * np.random.default_rng(0).standard_normal(200)))
        assert not self.kept([*norms, 0.01])  # far below the mean: dropped there, harmless here
        assert run_numpy(thresholds.Outlier(), np.array([*norms, 0.01])[:, None])[-1] > 0.01
        assert self.kept([*norms, 50.0, 12.0])  # behind a spike the next one hides
        assert run_numpy(thresholds.Outlier(), np.array([*norms, 50.0, 12.0])[:, None])[-1] < 12.0
