"""Gradients that vanish or never come, in real trainings, and the trainings beside them that are well."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import cycle, islice, pairwise

import numpy as np
import pytest
import torch
from torch import nn

from gradclip.diagnosis.readings.run_data import read_run
from gradclip.diagnosis.signals.norm_decay import norm_decay
from gradclip.diagnosis.signals.weight_matrices import Matrices, matrices_of
from gradclip.runs import ABSENT, Run, RunWriter, StepRow, TensorInfo
from tests.diagnosis.runs import read, recorded
from tests.diagnosis.support import findings, found, recorded_training
from tests.diagnosis.trainings import CLASSES, WIDTH, batches, he, net, trained, xavier

FAMILY = "vanishing"


# --- in depth: real trainings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adam", [False, True])
def test_twenty_sigmoid_layers_vanish_with_any_optimizer(tmp_path, adam):
    path = trained(tmp_path, lambda: net(20, nn.Sigmoid), adam=adam, rate=1e-3 if adam else 0.1)
    (finding,) = findings(path, FAMILY)
    assert finding.name == "vanishing-in-depth"
    assert (finding.symptom.severity, finding.symptom.confidence) == ("warning", "likely")
    assert "from 40.weight to 0.weight, through 21 weight matrices" in finding.symptom.sentence
    assert finding.symptom.evidence[0].value > 10
    assert "Clipping cannot mend this" in finding.symptom.fix


@pytest.mark.parametrize(("depth", "activation"), [(7, nn.Sigmoid), (20, nn.ReLU), (20, nn.Tanh)])
def test_shallower_ones_and_torch_s_own_initialisation_vanish_too(tmp_path, depth, activation):
    assert found(trained(tmp_path, lambda: net(depth, activation), rate=0.1), FAMILY) == ["vanishing-in-depth"]


def test_so_deep_that_float32_has_no_number_left_is_one_finding(tmp_path):
    path = trained(tmp_path, lambda: net(55, nn.Sigmoid), rate=0.1, steps=100)
    assert (read(path, 200).optimizers[0].layers.norms == 0).any()
    assert found(path, FAMILY) == ["vanishing-in-depth"]


def test_clipping_does_not_mend_it(tmp_path):
    path = trained(tmp_path, lambda: net(12, nn.Sigmoid), clip=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.1))
    assert found(path, FAMILY) == ["vanishing-in-depth"]


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def residual():
    blocks = [Residual(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Sigmoid())) for _ in range(20)]
    return nn.Sequential(*blocks, nn.Linear(WIDTH, CLASSES))


def tapered(*widths):
    layers = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def convolutions(normed):
    sizes = [1, 8, 8, 16, 16, 32]
    layers = [nn.Unflatten(1, (1, 4, 8))]
    for pair in pairwise(sizes):
        layers += [nn.Conv2d(*pair, 3, padding=1), *([nn.BatchNorm2d(pair[1])] if normed else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 32, CLASSES))


def frozen_backbone():
    model = net(10, nn.ReLU, start=he)
    for parameter in list(model.parameters())[:10]:
        parameter.requires_grad_(False)
    return model


HEALTHY = {
    "relu with He": (lambda: net(20, nn.ReLU, start=he), False, 0.05),
    "gelu with He": (lambda: net(20, nn.GELU, start=he), True, 1e-3),
    "tanh with Xavier": (lambda: net(20, nn.Tanh, start=xavier), False, 0.05),
    "sigmoid with batch norm": (lambda: net(20, nn.Sigmoid, norm=nn.BatchNorm1d), False, 0.1),
    "sigmoid with layer norm": (lambda: net(20, nn.Sigmoid, norm=nn.LayerNorm), False, 0.1),
    "sigmoid with a way past": (residual, False, 0.01),
    "five sigmoid layers that learn": (lambda: net(5, nn.Sigmoid), True, 1e-2),
    "torch's own initialisation, not deep": (lambda: net(6, nn.ReLU), True, 3e-3),
    "twelve layers of silu": (lambda: net(12, nn.SiLU), True, 3e-3),
    "widths that shrink": (lambda: tapered(WIDTH, 256, 128, 64, 32, 16, CLASSES), True, 1e-3),
    "widths that grow": (lambda: tapered(WIDTH, 16, 32, 64, 128, 256, CLASSES), False, 0.1),
    "convolutions": (lambda: convolutions(False), True, 2e-3),
    "convolutions with batch norm": (lambda: convolutions(True), False, 0.05),
    "frozen backbone": (frozen_backbone, False, 0.05),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_nets_that_learn_give_nothing(tmp_path, name):
    make, adam, rate = HEALTHY[name]
    assert found(trained(tmp_path, make, adam=adam, rate=rate), FAMILY) == []


def test_a_net_that_has_converged_gives_nothing_although_all_its_norms_are_tiny(tmp_path):
    few = list(islice(batches(), 4))
    path = trained(tmp_path, lambda: net(6, nn.ReLU, start=he), adam=True, rate=5e-3, steps=300, data=lambda: cycle(few))
    assert read(path).optimizers[0].norms[-50:].max() < 0.01
    assert found(path, FAMILY) == []


def tokens():
    generator = torch.Generator().manual_seed(0)
    follower = torch.randint(20, (20,), generator=generator)
    while True:
        text = [torch.randint(20, (8,), generator=generator)]
        for _ in range(8):
            text.append(torch.where(torch.rand(8, generator=generator) < 0.8, follower[text[-1]], text[0]))
        joined = torch.stack(text, 1)
        yield joined[:, :-1], joined[:, 1:]


class Language(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        if kind is nn.TransformerEncoder:
            self.inner = nn.Sequential(*(nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True) for _ in range(3)))
        else:
            self.inner = kind(16, 16, 3, batch_first=True)
        self.head = nn.Linear(16, 20)

    def forward(self, x):
        y = self.inner(self.embedding(x))
        return self.head(y[0] if isinstance(y, tuple) else y)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, nn.TransformerEncoder])
def test_language_models_give_nothing(tmp_path, kind):
    assert found(trained(tmp_path, lambda: Language(kind), adam=True, rate=1e-2, data=tokens), FAMILY) == []


# --- in depth: the limits -----------------------------------------------------------------------------------------------


def in_depth(path, fall, *, layers=8, steps=60, losses=None, ratios=None, absent=(), shape=(4, 4), every=1):
    """A run whose norms fall from the last layer to the first by so many powers of ten."""
    writer = RunWriter(path, {"title": "depth"})
    writer.add_tensors([TensorInfo(f"{i}.weight", shape) for i in range(layers)])
    line = 10.0 ** (np.linspace(-fall, 0, layers) if np.isscalar(fall) else np.asarray(fall))
    for step in range(steps):
        loss = None if losses is None else losses[step]
        writer.add_step(StepRow(step=step, norm=float(np.linalg.norm(line)), loss=loss))
        if step % every == 0:
            writer.add_tensor_row(step, 0, "norm", [ABSENT if i in absent else float(v) for i, v in enumerate(line)])
            if ratios is not None:
                writer.add_tensor_row(step, 0, "weight_norm", [1.0] * layers)
                writer.add_tensor_row(step, 0, "update_norm", [float(v) for v in 10.0 ** np.linspace(-ratios, -2, layers)])
    writer.close()
    assert writer.failed is None
    return path


FLAT, FALLING = [2.3] * 60, list(np.linspace(2.3, 0.5, 60))


@pytest.mark.parametrize(
    ("fall", "options", "expected"),
    [
        (3.05, {"losses": FLAT}, ["warning likely"]),
        (2.95, {"losses": FLAT}, []),
        (-6, {"losses": FLAT}, []),
        (6, {"losses": FLAT, "layers": 5}, ["warning likely"]),
        (6, {"losses": FLAT, "layers": 4}, []),
        (6, {"losses": FALLING}, []),
        (6, {"losses": FALLING, "ratios": 5.05}, ["note likely"]),
        (6, {"losses": FALLING, "ratios": 4.95}, []),
        (6, {"ratios": 8}, ["warning likely"]),
        (6, {"ratios": 2}, []),
        (6, {"losses": [2.3 - 0.0017 * i for i in range(60)]}, ["warning likely"]),
        (6, {"losses": [2.3 - 0.0024 * i for i in range(60)]}, []),
        (6, {"losses": FLAT, "every": 2}, []),
        (6, {"losses": FLAT, "absent": (0, 1, 2)}, ["warning likely"]),
        (6, {"losses": FLAT, "absent": (0, 1, 2, 3)}, []),
        (6, {"losses": FLAT, "shape": (4,)}, []),
        ([-6, -6, -6, -6, 0, 0, 0, 0], {"losses": FLAT}, []),
        ([0, 0, 0, 0, 0, 0, 0, 6], {"losses": FLAT}, []),
        ([-9, 0, 0, 0, 0, 0, 0, 0], {"losses": FLAT}, []),
        ([-6, 0, -5, 0, -3, 0, -2, 0], {"losses": FLAT}, []),
        ([math.nan] * 8, {"losses": FLAT}, []),
    ],
)  # fmt: skip
def test_where_the_line_is_drawn(tmp_path, fall, options, expected):
    path = in_depth(tmp_path / "a.gradclip", fall, **options)
    told = [finding.symptom for finding in findings(path, FAMILY)]
    assert [f"{symptom.severity} {symptom.confidence}" for symptom in told] == expected


def test_without_losses_and_updates_it_is_possible_once_forty_steps_are_there(tmp_path):
    (finding,) = findings(in_depth(tmp_path / "a.gradclip", 6, steps=40), FAMILY)
    assert (finding.symptom.severity, finding.symptom.confidence) == ("warning", "possible")
    assert found(in_depth(tmp_path / "b.gradclip", 6, steps=38), FAMILY) == []


@pytest.mark.parametrize(("until", "expected"), [(112, []), (188, []), (192, ["vanishing-in-depth"])])
def test_a_training_that_finds_its_way_gives_nothing(tmp_path, until, expected):
    steep, level = [10.0 ** (i - 7) for i in range(8)], [1.0] * 8
    writer = RunWriter(tmp_path / "a.gradclip", {})
    writer.add_tensors([TensorInfo(f"{i}.weight", (4, 4)) for i in range(8)])
    for step in range(200):
        writer.add_step(StepRow(step=step, norm=1.0, loss=2.3))
        writer.add_tensor_row(step, 0, "norm", steep if step < until else level)
    writer.close()
    assert found(writer.path, FAMILY) == expected


def test_the_smaller_fall_of_norm_and_root_mean_square_counts():
    norms = 10.0 ** np.linspace(-4, 0, 5)[None]
    names, steps = tuple("abcde"), np.array([0])
    alike = Matrices(names, np.full(5, 100), steps, norms)
    growing = Matrices(names, 100 * 10 ** np.arange(5), steps, norms)  # root mean squares fall by 2 less
    shrinking = Matrices(names, 10_000_000 // 10 ** np.arange(5), steps, norms)
    assert norm_decay(alike) == pytest.approx(4)
    assert norm_decay(growing) == pytest.approx(2)
    assert norm_decay(shrinking) == pytest.approx(4)


def test_biases_and_norm_layers_are_no_matrices(tmp_path):
    path = trained(tmp_path, lambda: net(2, nn.ReLU, norm=nn.LayerNorm), steps=2)
    layers = matrices_of(read(path).optimizers[0])
    assert layers.names == ("1.weight", "4.weight", "6.weight")
    assert layers.sizes.tolist() == [WIDTH * WIDTH, WIDTH * WIDTH, WIDTH * CLASSES]


# --- dead layers ----------------------------------------------------------------------------------------------------------


def kill(model, step, at=0, layer=4):
    if step == at:
        with torch.no_grad():
            model[layer].bias.fill_(-1e4)


def with_a_large_bias(folder, activation, at):
    def before(model, step):
        kill(model, step, at)

    return trained(folder, lambda: net(4, activation, start=he), before=before, rate=0.01)


@pytest.mark.parametrize("at", [0, 40])
def test_leaky_layers_live_on(tmp_path, at):
    assert "dead-layer" not in found(with_a_large_bias(tmp_path, nn.LeakyReLU, at), FAMILY)


@pytest.mark.parametrize(("at", "more"), [(0, 4), (40, 3)])  # at first the bias of the layer above is 0, and it is dead, too
def test_a_relu_layer_that_has_died(tmp_path, at, more):
    path = with_a_large_bias(tmp_path, nn.ReLU, at)
    (finding,) = findings(path, FAMILY)
    assert finding.name == "dead-layer"
    assert finding.symptom.severity == "warning"
    assert f"The gradient of 0.weight (and of {more} layers more) is exactly 0 from step {at} on" in finding.symptom.sentence


def dead(path, stretch, steps=200, *, others=1.0, missing=False, shape=(2, 2), losses=None, after=()):
    writer = RunWriter(path, {})
    writer.add_tensors([TensorInfo("a.weight", shape), TensorInfo("b.weight", (2, 2))])
    for step in range(steps):
        zero = step >= steps - stretch and step not in after
        writer.add_step(StepRow(step=step, norm=others, loss=losses))
        writer.add_tensor_row(step, 0, "norm", [(ABSENT if missing else 0.0) if zero else 1.0, others if zero else 1.0])
    writer.close()
    return path


@pytest.mark.parametrize(
    ("stretch", "options", "expected"),
    [
        (50, {}, ["warning possible"]),
        (49, {}, []),
        (60, {"steps": 601}, []),
        (61, {"steps": 600}, ["warning possible"]),
        (200, {}, ["note possible"]),
        (200, {"losses": 2.3}, ["warning likely"]),
        (100, {"after": (199,)}, []),
        (100, {"missing": True}, []),
        (100, {"others": 0.0}, []),
        (100, {"others": math.nan}, []),
        (100, {"shape": (2,)}, []),
    ],
)
def test_where_a_layer_counts_as_dead(tmp_path, stretch, options, expected):
    path = dead(tmp_path / "a.gradclip", stretch, **options)
    told = [finding.symptom for finding in findings(path, FAMILY)]
    assert [f"{symptom.severity} {symptom.confidence}" for symptom in told] == expected


# --- unused parameters ----------------------------------------------------------------------------------------------------


class Parts(nn.Module):
    """A net with a part that may rest."""

    def __init__(self, resting, uses=lambda step: False):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.extra = nn.Linear(WIDTH, 4)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.uses, self.step = uses, 0
        for parameter in [p for name in resting for p in getattr(self, name).parameters()]:
            parameter.requires_grad_(False)

    def forward(self, x):
        hidden = torch.relu(self.second(torch.relu(self.first(x))))
        if self.uses(self.step):
            hidden = hidden + self.extra(hidden).sum(1, keepdim=True)
        self.step += 1
        return self.head(hidden)


def test_a_module_that_is_never_called(tmp_path):
    (finding,) = findings(trained(tmp_path, lambda: Parts([]), steps=60), FAMILY)
    assert finding.name == "unused-parameter"
    assert finding.symptom.severity == "warning"
    assert finding.symptom.sentence.startswith("extra.weight (and 1 tensor more) never had a gradient in 60 steps")


@pytest.mark.parametrize("uses", [lambda step: True, lambda step: step >= 30, lambda step: step == 50])
def test_one_that_is_called_at_times_gives_nothing(tmp_path, uses):
    assert found(trained(tmp_path, lambda: Parts([], uses), steps=60), FAMILY) == []


def unfrozen_later(model, step):
    if step == 20:
        model.second.requires_grad_(True)


@pytest.mark.parametrize(
    ("resting", "before"),
    [(["first"], None), (["first", "second"], None), (["second"], unfrozen_later), (["second"], None)],
)
def test_parts_that_are_frozen_on_purpose_give_nothing(tmp_path, resting, before):
    path = trained(tmp_path, lambda: Parts(resting, lambda step: True), steps=60, before=before)
    assert found(path, FAMILY) == []


def norms_frozen():
    model = net(4, nn.ReLU, norm=nn.LayerNorm)
    for layer in model:
        if isinstance(layer, nn.LayerNorm):
            layer.requires_grad_(False)
    return model


def biases_alone():
    model = net(4, nn.ReLU, start=he)
    model[2].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("make", [norms_frozen, biases_alone])
def test_patterns_of_freezing_give_nothing(tmp_path, make):
    assert found(trained(tmp_path, make, steps=60), FAMILY) == []


def test_a_teacher_beside_its_student_gives_nothing(tmp_path):
    def make():
        model = net(2, nn.ReLU, start=he)
        model.add_module("teacher", nn.Identity())
        model.teacher.copy = net(2, nn.ReLU, start=he).requires_grad_(False)
        return model

    assert found(trained(tmp_path, make, steps=60), FAMILY) == []


def test_parts_that_take_turns_say_nothing_of_one_that_had_none_yet(tmp_path):
    names = ["body.weight", "a.weight", "b.weight", "c.weight"]
    turns = [[1.0, 1.0 if step % 2 else ABSENT, ABSENT if step % 2 else 1.0, ABSENT] for step in range(100)]
    steady = [[1.0, 1.0, 1.0, ABSENT] for _ in range(100)]
    asked = {"names": names, "frozen": {"0": []}}
    assert found(recorded(tmp_path / "a.gradclip", turns, **asked), FAMILY) == []
    assert found(recorded(tmp_path / "b.gradclip", steady, **asked), FAMILY) == ["unused-parameter"]
    assert found(recorded(tmp_path / "c.gradclip", steady[:49], **asked), FAMILY) == []
    assert found(recorded(tmp_path / "d.gradclip", steady, names=names, frozen={"0": [3]}), FAMILY) == []
    assert found(recorded(tmp_path / "e.gradclip", steady, names=names), FAMILY) == []  # a file that does not say
    assert found(recorded(tmp_path / "f.gradclip", steady, names=names, frozen={"0": [[]]}), FAMILY) == ["unused-parameter"]


# --- any run ----------------------------------------------------------------------------------------------------------------


def test_two_optimizers_are_told_apart(tmp_path):
    def train():
        good, bad = net(6, nn.ReLU, start=he), net(20, nn.Sigmoid)
        optimizers = [torch.optim.SGD(model.parameters(), lr=0.05) for model in (good, bad)]
        for x, y in islice(batches(), 80):
            for model, optimizer in zip((good, bad), optimizers, strict=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()

    told = findings(recorded_training(tmp_path, train), FAMILY)
    assert [(finding.name, finding.optimizer) for finding in told] == [("vanishing-in-depth", 1)]


@pytest.mark.parametrize("steps", [0, 1, 3, 30])
def test_few_steps_say_nothing(tmp_path, steps):
    assert found(trained(tmp_path, lambda: net(20, nn.Sigmoid), steps=steps), FAMILY) == []


def test_a_file_without_shapes_tells_matrices_by_name(tmp_path):
    names = [f"{i}.linear.{what}" for i in range(8) for what in ("weight", "bias")]
    rows = [[10.0 ** (place // 2) for place in range(16)]] * 100
    path = recorded(tmp_path / "a.gradclip", rows, names=names, losses=[2.3] * 100)
    with Run.open(path) as run:
        (optimizer,) = read_run(run).optimizers
    bare = replace(optimizer, tensor_infos=tuple(replace(info, shape=()) for info in optimizer.tensor_infos))
    assert matrices_of(bare).names == tuple(names[::2])
    assert matrices_of(optimizer).names == ()  # vectors, by their shapes
