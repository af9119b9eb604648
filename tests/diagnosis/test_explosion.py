"""Exploding gradients, loss spikes, and gradients that are no numbers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradclip
from gradclip.diagnosis.readings.rolling_statistics import WINDOW, rolling_statistics
from gradclip.diagnosis.readings.run_data import read_run
from gradclip.diagnosis.signals.explosions import EARLY, RUNAWAY, TIMES
from gradclip.diagnosis.signals.loss_harm import LOST, SIGMAS, SOON
from gradclip.runs import Run
from tests.diagnosis.runs import recorded
from tests.diagnosis.support import findings, found, recorded_training
from tests.diagnosis.synthetic import falling, numbers, steady

EXPLODING, SPIKE, NONFINITE = "exploding-gradient", "loss-spike", "non-finite-gradient"


def exploded(steps=300, at=200, norm=1000.0, level=20.0, losses=None):
    """Norms with one that stands out, and a loss that is on another level from then on."""
    norms, losses = steady(steps), falling(steps) if losses is None else losses
    norms[at], losses[at + 1 :] = norm, level
    return norms, losses


def only(path, family="explosion"):
    (finding,) = findings(path, family)
    return finding


def classifier(*widths):
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def blobs(generator, size=32):
    """Four clouds in the plane."""
    labels = torch.randint(4, (size,), generator=generator)
    centres = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [-2.0, -2.0]])
    return centres[labels] + torch.randn(size, 2, generator=generator), labels


def train(model, optimizer, steps=250, clip=None, disturb=None, data=blobs, loss_of=F.cross_entropy, size=32):
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        inputs, targets = data(generator, size)
        optimizer.zero_grad()
        loss_of(model(inputs), targets).backward()
        if disturb is not None:
            disturb(step, model)
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()


def recorded_blobs(folder, make=None, **options):
    model = classifier(2, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1) if make is None else make(model.parameters())
    return recorded_training(folder, lambda: train(model, optimizer, **options), optimizer)


def enlarged(step, model, times=1e4):
    if step == 150:
        for parameter in model.parameters():
            parameter.grad.mul_(times)


def by_thirty(step, model):
    enlarged(step, model, 30.0)


# --- exploding-gradient ------------------------------------------------------------------------------------------------


def test_a_step_that_throws_the_weights_away(tmp_path):
    finding = only(recorded_blobs(tmp_path, disturb=enlarged))
    symptom = finding.symptom
    assert (finding.name, symptom.severity, symptom.evidence[0].step) == (EXPLODING, "error", 150)
    assert "exploded at step 150" in symptom.sentence
    assert symptom.evidence[1].tensor
    limit = float(symptom.fix.split("global_norm:")[1].split()[0])
    assert 0.1 < limit < 10, "the threshold comes from the steps before, not from the exploded one"


def test_adam_divides_by_the_norm_but_its_second_moment_remembers(tmp_path):
    path = recorded_blobs(tmp_path, disturb=enlarged, make=lambda p: torch.optim.Adam(p, 1e-2))
    assert found(path, "explosion") == [EXPLODING]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"disturb": enlarged, "clip": 1.0},
        {"disturb": by_thirty, "make": lambda p: torch.optim.Adam(p, 1e-2)},
        {"make": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)},
        {"make": lambda p: torch.optim.AdamW(p, 1e-2)},
        {"size": 1, "steps": 500, "make": lambda p: torch.optim.Adam(p, 3e-3)},
    ],
    ids=["sound", "tamed by clipping", "shrugged off by Adam", "momentum", "AdamW", "batches of one"],
)
def test_sound_runs(tmp_path, options):
    assert found(recorded_blobs(tmp_path, **options), "explosion") == []


def test_a_recurrent_net_that_diverges_at_once_and_its_twin_with_clipping(tmp_path):
    class Adder(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.output = nn.RNN(1, 16, batch_first=True), nn.Linear(16, 1)
            self.rnn.weight_hh_l0.data.mul_(2.0)

        def forward(self, inputs):
            return self.output(self.rnn(inputs)[0][:, -1])

    def sums(generator, size):
        inputs = torch.randn(size, 20, 1, generator=generator)
        return inputs, inputs.sum(dim=1) / 20**0.5

    def path(folder, clip):
        model = Adder()
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        return recorded_training(folder, lambda: train(model, optimizer, 60, clip, data=sums, loss_of=F.mse_loss), optimizer)

    broken = findings(path(tmp_path / "a", None), "explosion")
    assert broken[0].name == EXPLODING
    assert broken[0].symptom.confidence == "certain"
    assert "lr=0.05" in broken[0].symptom.fix
    assert found(path(tmp_path / "b", 0.1), "explosion") == []


def test_heavy_tails_and_a_falling_loss_are_no_explosion(tmp_path):
    generator = np.random.default_rng(0)
    norms = steady(1000) * np.where(generator.random(1000) < 0.05, generator.pareto(1.1, 1000) * 20 + 1, 1.0)
    assert norms.max() > 100 * np.median(norms)
    assert found(numbers(tmp_path / "a.gradclip", norms, falling(1000)), "explosion") == []


def test_a_loss_that_other_data_raised_is_no_explosion(tmp_path):
    norms, losses = steady(400), falling(400)
    norms[200:], losses[200:] = steady(200, 20.0), 50.0 + falling(200)  # both from that step on: the batch is another
    assert EXPLODING not in found(numbers(tmp_path / "a.gradclip", norms, losses), "explosion")


def test_norms_that_fall_from_a_huge_first_step(tmp_path):
    norms = steady(300) * (1 + 1e4 * np.exp(-np.arange(300) / 10))
    assert found(numbers(tmp_path / "a.gradclip", norms, falling(300, 500.0, 1.0)), "explosion") == []


def test_a_warm_up_whose_norms_rise_while_the_loss_falls(tmp_path):
    norms = steady(300) * np.minimum(1.0, np.linspace(1e-4, 2.0, 300))
    assert found(numbers(tmp_path / "a.gradclip", norms, falling(300)), "explosion") == []


def test_norms_above_the_limit_by_a_little_and_below_it(tmp_path):
    for times, expected in ((1.2, [EXPLODING]), (0.8, [])):
        norms, losses = exploded()
        norms[:200] = 1.0
        norms[200] = times * TIMES
        path = numbers(tmp_path / f"{times}.gradclip", norms, losses)
        assert [name for name in found(path, "explosion") if name == EXPLODING] == expected


def test_a_loss_that_is_back_soon_is_no_explosion(tmp_path):
    norms, losses = exploded(level=20.0)
    losses[201 + SOON // 2 :] = falling(300)[201 + SOON // 2 :]
    assert EXPLODING not in found(numbers(tmp_path / "a.gradclip", norms, losses), "explosion")


@pytest.mark.parametrize(("noise", "rise"), [(0.1, SIGMAS * 1.4826 * 0.1), (0.01, LOST * 2.0)])
@pytest.mark.parametrize(("gain", "expected"), [(1.2, [EXPLODING]), (0.8, [])])
def test_the_limit_of_the_harm(tmp_path, noise, rise, gain, expected):
    losses = np.tile([2.0 - noise, 2.0, 2.0 + noise], 100)
    norms, losses = exploded(losses=losses, level=2.0 + gain * rise)
    assert found(numbers(tmp_path / "a.gradclip", norms, losses), "explosion") == expected


@pytest.mark.parametrize(("tamed", "expected"), [(False, [EXPLODING]), (True, [])])
def test_what_reached_the_weights_counts(tmp_path, tamed, expected):
    norms, losses = exploded(losses=np.linspace(1.0, 1.0, 300) + 0.01 * np.sin(np.arange(300)), level=1.2)
    after = np.minimum(norms, 1.0) if tamed else norms
    path = numbers(tmp_path / "a.gradclip", norms, losses, clipped_norms=after)
    assert [name for name in found(path, "explosion") if name == EXPLODING] == expected


def test_a_skipped_step_does_not_count(tmp_path):
    norms, losses = exploded()
    assert EXPLODING not in found(numbers(tmp_path / "a.gradclip", norms, losses, skipped=[200]), "explosion")


@pytest.mark.parametrize(("growth", "expected"), [(2.0, [EXPLODING]), (0.5, [])])
def test_norms_that_grow_through_the_whole_run(tmp_path, growth, expected):
    # the medians of the first and the last third lie two thirds of the run apart
    norms = steady(300) * np.exp(np.linspace(0.0, 1.5 * np.log(growth * RUNAWAY), 300))
    clipped = np.minimum(norms, 1.0)
    path = numbers(tmp_path / "a.gradclip", norms, falling(300, 1.0, 30.0), clipped_norms=clipped)
    assert found(path, "explosion") == expected


def test_norms_that_grow_while_the_loss_falls(tmp_path):
    norms = steady(300) * np.exp(np.linspace(0.0, 20.0, 300))
    assert found(numbers(tmp_path / "a.gradclip", norms, falling(300)), "explosion") == []


@pytest.mark.parametrize(("times", "level", "expected"), [(2.0, 50.0, [EXPLODING]), (0.5, 50.0, []), (2.0, 5.0, [])])
def test_an_explosion_in_the_first_steps(tmp_path, times, level, expected):
    # the norms stay high: one that comes back is judged as a single peak
    norms, losses = np.array([1.0, 1.0] + [times * EARLY] * 58), np.array([2.0, 2.0, 2.0] + [level] * 57)
    path = numbers(tmp_path / "a.gradclip", norms, losses)
    assert found(path, "explosion") == expected
    if expected:
        fix = only(path).symptom.fix
        assert "--clip global_norm:1.0 train.py --epochs 3" in fix, "1% of the weights' norm of 10 over lr=0.1"
        assert "lr=0.01 in place of 0.1" in fix


def test_without_a_loss_only_numbers_that_are_none_tell(tmp_path):
    norms = steady(300)
    norms[200] = 1e4
    assert found(numbers(tmp_path / "a.gradclip", norms), "explosion") == []
    norms[205:] = np.nan
    broken = findings(numbers(tmp_path / "b.gradclip", norms), "explosion")
    assert [finding.name for finding in broken] == [EXPLODING, NONFINITE]
    assert all("--clip global_norm:" in finding.symptom.fix for finding in broken)


def test_each_optimizer_for_itself(tmp_path):
    norms, losses = exploded()
    path = numbers(tmp_path / "a.gradclip", norms, losses, optimizers=2)
    assert [(finding.name, finding.optimizer) for finding in findings(path, "explosion")] == [(EXPLODING, 0), (EXPLODING, 1)]


def test_the_threshold_comes_from_the_layers_before_it_too(tmp_path):
    """Spikes of both layers ask for one threshold for all; those of one layer, after it broke, would ask for another."""
    norms, losses = exploded()
    norms[:200:10] *= 8.0
    norms[200:] = 1000.0
    rows = {step: [0.6 * norm, 0.8 * norm] if step < 200 else [norm, 0.0] for step, norm in enumerate(norms)}
    assert "--clip global_norm:" in only(numbers(tmp_path / "a.gradclip", norms, losses, rows=rows)).symptom.fix


# --- loss-spike --------------------------------------------------------------------------------------------------------


def spiked(length=10, height=6.0, steps=300, at=200):
    losses = np.maximum(falling(steps, 2.0, 2.0), falling(steps, 5.0, 5.0 - steps / 10))
    losses[at : at + length] = height
    return losses


def test_a_loss_that_jumps_after_an_unusual_gradient(tmp_path):
    norms = steady(300)
    norms[199] = 8.0
    symptom = only(numbers(tmp_path / "a.gradclip", norms, spiked())).symptom
    assert (symptom.severity, symptom.confidence) == ("warning", "likely")
    assert "at step 200 and was back at step 210" in symptom.sentence
    assert (symptom.evidence[1].step, symptom.evidence[2].tensor) == (199, "first.weight")
    assert "--clip" in symptom.fix


def test_a_loss_that_jumps_by_itself(tmp_path):
    finding = only(numbers(tmp_path / "a.gradclip", steady(300), spiked()))
    assert (finding.name, finding.symptom.severity, finding.symptom.confidence) == (SPIKE, "note", "possible")
    assert "batches" in finding.symptom.fix


@pytest.mark.parametrize(
    ("losses", "rates"),
    [
        (spiked(length=2), None),
        (spiked(height=2.2), None),
        (spiked(at=20, steps=100), None),
        (spiked() - falling(300, 3.0, 0.0), None),
        (spiked(), [0.01] * 190 + [0.1] * 110),
    ],
    ids=["two bad batches", "small", "no past", "a loss that gained nothing", "a warm restart"],
)
def test_what_is_no_spike(tmp_path, losses, rates):
    assert found(numbers(tmp_path / "a.gradclip", steady(len(losses)), losses, rates=rates), "explosion") == []


def test_a_loss_that_is_no_number_is_no_spike(tmp_path):
    assert found(numbers(tmp_path / "a.gradclip", steady(300), spiked(height=np.nan)), "explosion") == []


# --- non-finite-gradient -----------------------------------------------------------------------------------------------


class Broken(nn.Module):
    """Two layers, and an operation between them whose slope at 0 is infinite."""

    def __init__(self, operation):
        super().__init__()
        self.first, self.second, self.operation, self.calls = nn.Linear(2, 8), nn.Linear(8, 4), operation, 0

    def forward(self, inputs):
        self.calls += 1
        hidden = torch.relu(self.first(inputs))
        return self.second(self.operation(hidden) if self.calls > 30 else hidden)


def recorded_operation(folder, operation):
    model = Broken(operation)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return recorded_training(folder, lambda: train(model, optimizer, 60), optimizer)


def test_a_square_root_at_zero_breaks_backward_and_its_twin_does_not(tmp_path):
    finding = only(recorded_operation(tmp_path / "a", lambda hidden: hidden + torch.sqrt(0 * hidden)))
    symptom = finding.symptom
    assert (finding.name, symptom.severity, symptom.confidence) == (NONFINITE, "error", "certain")
    assert symptom.sentence.startswith("At step 30 the gradient of first.weight, first.bias was NaN or Inf while the loss was")
    assert {one.tensor for one in symptom.evidence if np.isnan(one.value)} == {"first.weight", "first.bias"}
    (behind,) = (one for one in symptom.evidence if one.tensor == "second.weight")
    assert behind.value > 0
    assert "set_detect_anomaly(True)" in symptom.fix
    assert found(recorded_operation(tmp_path / "b", lambda hidden: hidden + torch.sqrt(0 * hidden + 1e-12)), "explosion") == []


def test_a_loss_that_was_no_number_points_to_the_data(tmp_path):
    symptom = only(recorded_operation(tmp_path, lambda hidden: hidden / 0)).symptom
    assert "every tensor was NaN or Inf, as was the loss (NaN)" in symptom.sentence
    assert "isfinite(inputs)" in symptom.fix
    assert "nonfinite=skip" in symptom.fix


def test_the_fix_that_skips_is_a_recipe():
    assert gradclip.parse("global_norm:inf,nonfinite=skip").nonfinite == gradclip.parse("global_norm:1.0").nonfinite


def poisoned(step, model):
    if step in (100, 150):
        model[0].weight.grad[0, 0] = torch.nan


def test_steps_that_this_library_skips_leave_a_note(tmp_path):
    model = classifier(2, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    gradclip.attach(optimizer, "global_norm:1.0")
    with pytest.warns(RuntimeWarning, match="skipped a step"):
        path = recorded_training(tmp_path, lambda: train(model, optimizer, disturb=poisoned), optimizer)
    symptom = only(path).symptom
    assert (symptom.severity, symptom.evidence[1].tensor) == ("note", "0.weight")
    assert symptom.sentence.startswith("2 steps (0.8%)")
    assert "nonfinite=skip" not in symptom.fix


def test_a_scaler_that_finds_its_scale_is_at_work(tmp_path):
    def path(folder, broken_from):
        model = classifier(2, 16, 4)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        scaler = torch.amp.GradScaler("cpu", growth_interval=60)

        def training():
            generator = torch.Generator().manual_seed(1)
            for step in range(300):
                inputs, targets = blobs(generator)
                optimizer.zero_grad()
                scaler.scale(F.cross_entropy(model(inputs), targets)).backward()
                if scaler.get_scale() > 2**12 or step >= broken_from:  # half precision overflows there
                    model[0].weight.grad[0, 0] = torch.inf
                scaler.step(optimizer)
                scaler.update()

        return recorded_training(folder, training, optimizer)

    with Run.open(path(tmp_path / "a", 1000)) as run:
        assert read_run(run).optimizers[0].bad.sum() >= 5
        assert found(run.path, "explosion") == []
    symptom = only(path(tmp_path / "b", 250)).symptom
    assert (symptom.severity, symptom.evidence[0].value > 0.15) == ("warning", True)
    assert "at step 2" in symptom.sentence


@pytest.mark.parametrize(("dropped", "expected"), [(19, []), (20, [NONFINITE])])
def test_how_many_steps_a_scaler_may_drop_in_a_row(tmp_path, dropped, expected):
    norms = steady(3000)
    norms[100 : 100 + dropped] = np.inf
    path = numbers(tmp_path / "a.gradclip", norms, falling(3000), skipped=range(100, 100 + dropped), scale=1024.0)
    assert found(path, "explosion") == expected


@pytest.mark.parametrize(("share", "severity"), [(0.008, "note"), (0.02, "warning")])
def test_the_share_of_skipped_steps(tmp_path, share, severity):
    norms, steps = steady(1000), range(0, 1000, int(1 / share))
    norms[steps.start :: steps.step] = np.nan
    symptom = only(numbers(tmp_path / "a.gradclip", norms, falling(1000), skipped=steps)).symptom
    assert symptom.severity == severity


def test_a_step_that_something_else_saved(tmp_path):
    norms = steady(300)
    norms[100] = np.nan
    symptom = only(numbers(tmp_path / "a.gradclip", norms, falling(300))).symptom
    assert (symptom.severity, "the run is lost" in symptom.sentence) == ("warning", False)
    cleaned = norms.copy()
    cleaned[100] = 0.0
    symptom = only(numbers(tmp_path / "b.gradclip", norms, falling(300), clipped_norms=cleaned)).symptom
    assert symptom.severity == "note"


def test_without_a_loss_it_says_that_it_cannot_tell(tmp_path):
    norms = steady(100)
    norms[50:] = np.nan
    assert "cannot tell forward from backward" in only(numbers(tmp_path / "a.gradclip", norms)).symptom.fix


def test_the_tensors_of_a_step_that_were_not_kept(tmp_path):
    norms = steady(100)
    norms[55:] = np.nan
    symptom = only(numbers(tmp_path / "a.gradclip", norms, falling(100), every=10)).symptom
    assert "the gradient of 2 tensors was" in symptom.sentence


# --- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 25])
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_short_and_empty_runs_say_nothing_of_norms(tmp_path, steps, value):
    path = numbers(tmp_path / "a.gradclip", [value] * steps, [1.0] * steps)
    assert set(found(path, "explosion")) <= ({NONFINITE} if np.isnan(value) else set())


def test_norms_that_were_never_measured(tmp_path):
    path = numbers(tmp_path / "a.gradclip", [1.0] * 5)
    with Run.open(path) as run:
        steps = read_run(run).optimizers[0].steps
    assert steps.missing["loss"].all()
    assert found(path, "explosion") == []


def test_the_past_of_a_number_is_what_lies_right_before_it():
    values = np.arange(500.0)
    middle, spread = rolling_statistics(values, least=20)
    assert np.isnan(middle[:20]).all()
    assert (middle[20], middle[100]) == (np.median(values[:20]), np.median(values[:100]))
    assert middle[320] == np.median(values[320 - WINDOW : 320])
    assert spread[320] == pytest.approx(1.4826 * WINDOW / 4)


def test_losses_that_stand_out_all_the_time_need_more_than_three_in_a_row(tmp_path):
    """Gross outliers in the data, one batch in six: among 400 losses three in a row are to be expected."""
    generator = np.random.default_rng(0)
    common = [1.0 + 1 / (step + 1) + 0.02 * generator.normal() + 50 * (step % 6 == 0) for step in range(400)]
    common[0] = 2.0
    for step in (301, 302):  # with that of step 300: three in a row
        common[step] += 50
    rare = [loss - 50 if step % 6 == 0 and 0 < step != 300 else loss for step, loss in enumerate(common)]
    rows = [[1.0]] * 400
    assert found(recorded(tmp_path / "common.gradclip", rows, losses=common), "explosion") == []
    assert found(recorded(tmp_path / "rare.gradclip", rows, losses=rare), "explosion") == ["loss-spike"]


def early_peak(height, after, ended):
    """A peak of ``height`` in the fifth norm, losses that lie at ``after`` for 60 steps and end at ``ended``."""
    norms = [1.0, 1.0, 1.0, 8.0, height] + [1.5] * 195
    losses = [2.0] * 4 + [after] * 60 + [ended] * 136
    return [[norm] for norm in norms], losses


@pytest.mark.parametrize(
    ("height", "after", "ended", "told"),
    [
        (20.0, 9.0, 1.9, ["exploding-gradient"]),
        (14.0, 9.0, 1.9, []),  # not ten times the norms after it
        (20.0, 3.9, 1.9, []),  # not twice the first losses
        (20.0, 9.0, 0.9, []),  # it learned in the end
    ],
)
def test_a_peak_in_the_first_steps_that_the_run_never_made_up_for(tmp_path, height, after, ended, told):
    rows, losses = early_peak(height, after, ended)
    assert found(recorded(tmp_path / "a.gradclip", rows, losses=losses), "explosion") == told


def test_norms_that_rise_early_and_stay_are_no_explosion(tmp_path):
    """Rewards that come in after a while: the losses and the norms of a value function grow, and stay."""
    rows = [[1.0]] * 4 + [[20.0]] * 196
    assert found(recorded(tmp_path / "a.gradclip", rows, losses=[2.0] * 4 + [9.0] * 196), "explosion") == []
