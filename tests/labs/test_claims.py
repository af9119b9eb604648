"""What each lab is there to show, on a version of it that takes a second."""

from __future__ import annotations

import pytest
import torch

from gradclip.labs import cliff, decay, directions, heavy_noise, load, schedules, temporal_order, thresholds, vanishing
from tests.labs.support import UNCLIPPED, Arm, runs


class TestCliff:
    def test_the_wall_throws_the_weights_and_clipping_keeps_every_step_short(self):
        free, clipped = runs(cliff.LAB, steps=260)
        assert cliff.longest(free) > 5
        assert cliff.longest(clipped) <= 0.05 * 1.0 * (1 + 1e-9)
        assert max(clipped.norms) > 1

    def test_the_verdict_names_the_throw(self):
        verdict = cliff.judge(runs(cliff.LAB, steps=260))
        assert "without clipping, one step of length" in verdict
        assert "with global_norm:1.0, no step is longer than 0.0500" in verdict

    def test_the_loss_of_a_map_is_that_of_its_points(self):
        w, b = torch.tensor([5.2, 4.0]), torch.tensor([-2.6, 1.0])
        assert torch.equal(cliff.loss(w, b), torch.stack([cliff.loss(w[i], b[i]) for i in range(2)]))


class TestTemporalOrder:
    def test_clipping_solves_what_is_unsolved_without(self):
        arms = [
            Arm("length 20", 0.1, clip, run) for clip, run in ((UNCLIPPED, 4), ("global_norm:1.0", 1), ("global_norm:1.0", 4))
        ]
        groups = temporal_order.by_method_and_length(done := runs(temporal_order.LAB, arms, steps=1000))
        assert temporal_order.solved(groups["without clipping", "length 20"]) == 0
        assert temporal_order.solved(groups["with global_norm:1.0", "length 20"]) >= 1
        assert temporal_order.judge(done).startswith("Of 2 runs at length 20, this many solved the task: without clipping 0;")

    def test_a_run_ends_when_it_is_solved(self):
        (run,) = runs(temporal_order.LAB, [Arm("length 10", 0.1, "global_norm:1.0", 1)], steps=600)
        assert len(run.losses) < 600
        assert temporal_order.error(run) < 0.01

    def test_the_class_is_the_order_of_the_two_symbols(self):
        sequences, classes = temporal_order.batch(30, 50, torch.Generator().manual_seed(0))
        for symbols, wanted in zip(sequences.argmax(dim=2).tolist(), classes.tolist(), strict=True):
            (early, first), (late, second) = [(at, symbol) for at, symbol in enumerate(symbols) if symbol < 2]
            assert 3 <= early < 6
            assert 12 <= late < 15
            assert wanted == 2 * first + second


class TestVanishing:
    def test_sigmoid_loses_the_gradient_and_each_cure_brings_it_back(self):
        for run in runs(vanishing.LAB, steps=2):
            if run.arm.model == "sigmoid":
                assert vanishing.fall(run) < 1e-10
            else:
                assert 0.05 < vanishing.fall(run) < 20, run.arm.model

    def test_the_fall_is_exponential(self):
        norms = torch.tensor(vanishing.by_layer(runs(vanishing.LAB, [Arm("sigmoid", 0.1)], steps=1)[0])).log10()
        steps = norms[2:].diff()  # the first two have the input's scale
        assert steps.std() < 0.2 * steps.mean()

    def test_clipping_lowers_every_layer_alike(self):
        free, clipped = runs(vanishing.LAB, [Arm("sigmoid", 0.1), Arm("sigmoid", 0.1, "global_norm:0.1")], steps=1)
        assert clipped.clipped == [True]
        assert vanishing.by_layer(clipped)[-1] < vanishing.by_layer(free)[-1]
        assert vanishing.fall(clipped) == pytest.approx(vanishing.fall(free), rel=1e-4)


class TestThresholds:
    def test_too_low_stalls_and_too_high_does_nothing(self):
        clips = (UNCLIPPED, "global_norm:0.001", "global_norm:0.1", "global_norm:1000.0")
        free, low, right, high = runs(thresholds.LAB, [Arm("RNN", 4.0, clip) for clip in clips], steps=30)
        assert high.losses == free.losses
        assert max(low.losses) - min(low.losses) < 0.2
        assert right.losses[-1] < min(low.losses[-1], high.losses[-1])
        verdict = thresholds.judge([free, low, right, high])
        assert verdict.startswith("In bits per character, the best fixed threshold is 0.1 (")
        assert "0.001 is too low" in verdict
        assert "1000 is too high" in verdict

    @pytest.mark.parametrize(
        ("clip", "fixed"),
        [("global_norm:0.5", True), ("global_norm:1.0,norm=inf", False), ("zclip", False), ("value:0.5", False)],
    )
    def test_which_arms_have_a_fixed_threshold(self, clip, fixed):
        run = runs(thresholds.LAB, [Arm("RNN", 4.0, clip)], steps=1)
        assert bool(thresholds.fixed(run)) == fixed
        assert bool(thresholds.others(run)) != fixed


class TestDirections:
    def test_the_norm_keeps_the_direction_and_values_bend_it(self):
        clips = ("global_norm:1.0", "value:0.1", "tensor_norm:0.5")
        whole, value, tensor = runs(directions.LAB, [Arm("LSTM", 0.1, clip) for clip in clips], steps=5)
        assert whole.clipped == [True] * 5
        assert max(whole.also["angle"]) < directions.EXACT
        assert all(1 < angle < 90 for angle in [*value.also["angle"], *tensor.also["angle"]])
        verdict = directions.judge([whole, value, tensor])
        assert verdict.startswith("The direction of the gradient is kept at every step by global_norm:1.0; it is bent at the")

    @pytest.mark.parametrize("degrees", [0.0, 1e-3, 45.0, 90.0, 135.0, 180.0])
    def test_the_angle(self, degrees):
        turn = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        one, other = torch.tensor([2.0, 0.0], dtype=torch.float64), 5 * torch.stack([turn.cos(), turn.sin()])
        assert directions.angle(one, other) == pytest.approx(degrees, abs=1e-6)


class TestSchedules:
    @pytest.mark.usefixtures("small")
    def test_the_rates_follow_their_schedules(self):
        arms = [Arm(name, 2.0, "global_norm:0.25") for name in schedules.SCHEDULES]
        rate = {run.arm.model: run.also["rate"] for run in runs(schedules.LAB, arms, steps=16)}
        assert rate["constant"] == [2.0] * 16
        assert rate["step decay"] == pytest.approx([2.0] * 8 + [0.6] * 4 + [0.18] * 4)
        assert rate["warm-up"] == pytest.approx([0.5, 1.0, 1.5] + [2.0] * 13)
        assert rate["cyclic"] == pytest.approx([0.2, 1.1, 2.0, 1.1] * 4)
        assert rate["cosine"] == sorted(rate["cosine"], reverse=True)
        assert rate["warm-up + cosine"][:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
        assert 0.2 < rate["warm-up + cosine"][-1] < 0.3

    def test_a_warm_up_and_clipping_each_prevent_the_first_spike(self):
        arms = [Arm("constant", 20.0), Arm("constant", 20.0, "global_norm:0.25"), Arm("warm-up", 20.0)]
        free, clipped, warm = (max(run.norms[:10]) for run in runs(schedules.LAB, arms, steps=40))
        assert free > 2 * max(clipped, warm)


class TestDecay:
    def test_l2_is_weight_decay_under_sgd_and_not_under_adam(self):
        sgd, sgd_clipped, adam, _ = runs(decay.LAB, steps=60)
        assert max(sgd.also["distance"]) < 1e-13
        assert sgd_clipped.also["distance"][-1] > 1e-3
        assert adam.also["distance"][-1] > 1e-3

    def test_torchs_weight_decay_under_sgd_is_the_twins(self):
        (run,) = runs(decay.LAB, [Arm("SGD", 0.05)], steps=3)
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        teacher = torch.randn(decay.INPUTS, 1, generator=generator, dtype=torch.float64)
        model = decay.small()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=decay.LAMBDA)
        for _ in range(3):
            points, values = decay.batch(teacher, generator)
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(points), values).backward()
            optimizer.step()
        assert run.also["weights of the twin"][-1] == pytest.approx(decay.length(model), rel=1e-14)

    def test_clipping_sees_l2_and_not_weight_decay(self):
        (run,) = runs(decay.LAB, [Arm("SGD", 0.05)], steps=1)
        assert run.norms[0] != pytest.approx(run.also["norm of the twin"][0], rel=1e-6)

    def test_the_verdict_says_which_are_the_same(self):
        verdict = decay.judge(runs(decay.LAB, steps=60))
        assert verdict.startswith("L2 in the loss and weight decay are the same for SGD without clipping (")
        assert "they part for SGD with global_norm:0.3 (" in verdict


class TestHeavyNoise:
    def test_without_clipping_it_diverges_and_with_it_lives(self):
        free, clipped = runs(
            load("heavy-noise"), [Arm("net", 0.01, clip, 3) for clip in (UNCLIPPED, "tensor_norm:1.0")], steps=400
        )
        assert free.note.startswith("diverged")
        assert len(clipped.losses) == 400
        assert heavy_noise.error(clipped) < 2
        assert "1 of 1 runs diverge without clipping (at step" in heavy_noise.judge([free, clipped])

    def test_the_noise_is_of_rank_one_and_its_length_has_a_heavy_tail(self):
        model, generator = heavy_noise.net(), torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        heavy_noise.add_noise(model, generator)
        for parameter in model.parameters():
            first, *rest = torch.linalg.svdvals(parameter.grad).tolist()
            assert first >= heavy_noise.SCALE * (1 - 1e-5)
            assert max(rest, default=0.0) < 1e-5 * first
        lengths = torch.stack([heavy_noise.pareto(generator) for _ in range(2000)])
        assert lengths.min() >= heavy_noise.SCALE
        assert (lengths > 50).double().mean() == pytest.approx(10**-1.1, abs=0.02)
