"""The clipping of torchtitan and of NeMo Automodel, in stand-ins that are called as theirs: seen, and left out for another."""

from __future__ import annotations

import math
import sys
import types

import pytest
import torch
from torch import nn

from gradclip.clipping import Clipping
from gradclip.runs import Run
from gradclip.watch.observe.patches import Patches
from gradclip.watch.observe.replace_clipping import ReplaceClipping
from tests.watch.support import net

TITAN, AUTOMODEL = "torchtitan.distributed.utils", "nemo_automodel.components.training.utils"


class Mesh:
    """A device mesh, as far as it is asked."""

    def __init__(self, size):
        self._size = size

    def size(self):
        return self._size


@torch.no_grad()
def titan(
    parameters, max_norm, norm_type=2.0, error_if_nonfinite=False, foreach=None, pp_mesh=None, ep_enabled=False
) -> torch.Tensor:
    parameters = list(parameters)
    total = nn.utils.get_total_norm([p.grad for p in parameters], norm_type, error_if_nonfinite, foreach)
    nn.utils.clip_grads_with_norm_(parameters, max_norm, total, foreach)
    return total


@torch.no_grad()
def automodel(max_grad_norm, model_parts, *, norm_type=2.0, pp_enabled=False, foreach=True) -> torch.Tensor | float:
    if max_grad_norm is None:
        return 0.0
    parameters = [p for part in model_parts for p in part.parameters() if p.requires_grad]
    return nn.utils.clip_grad_norm_(parameters, max_grad_norm, norm_type=norm_type, foreach=foreach)


def automodel_of_before(max_grad_norm, model_parts, *, norm_type=2.0, pp_enabled=False, foreach=True):
    return automodel(max_grad_norm, model_parts, norm_type=norm_type, foreach=foreach).item()


def module(name, clip, monkeypatch):
    """A module as the library's own, which calls its function by name, as ``scale_grads_and_clip_grad_norm`` does."""
    made = types.ModuleType(name)
    function = "clip_grad_norm_" if name == TITAN else "clip_grad_norm"
    setattr(made, function, clip)

    def scale_grads_and_clip_grad_norm(max_grad_norm, model_parts, *, num_label_tokens=2, **options):
        for part in model_parts:
            for p in part.parameters():
                p.grad.div_(num_label_tokens)
        return made.clip_grad_norm(max_grad_norm, model_parts, **options)

    made.scale_grads_and_clip_grad_norm = scale_grads_and_clip_grad_norm
    monkeypatch.setitem(sys.modules, name, made)
    return made


def backward(model):
    for p in model.parameters():
        p.grad = None
    model(torch.ones(4, 3)).sum().backward()


def whole(model):
    return math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))


@pytest.mark.parametrize("parameters", [list, iter], ids=["list", "iterator"])
def test_torchtitan_is_seen(parameters, recording, monkeypatch):
    torch.manual_seed(0)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    started = recording(model)
    library = module(TITAN, titan, monkeypatch)  # imported by the script behind the beginning of the watch
    norms = []
    for _ in range(3):
        backward(model)
        norms.append(whole(model))
        assert float(library.clip_grad_norm_(parameters(model.parameters()), 0.25, foreach=True)) == pytest.approx(norms[-1])
        assert whole(model) == pytest.approx(0.25, rel=1e-4)
        optimizer.step()
    started.close()
    assert library.clip_grad_norm_ is titan
    with Run.open(started.path) as run:
        steps = run.steps()
        assert steps.norm == pytest.approx(norms)
        assert steps.clipped_norm == pytest.approx(0.25, rel=1e-4)
        assert (steps.threshold == 0.25).all()
        clips = [event for *_, events in run.events() for event in events if event.kind == "clip"]
        assert [(clip.function, clip.norm, clip.threshold, clip.reached) for clip in clips] == [
            ("clip_grad_norm_", 2.0, 0.25, 4)
        ] * 3


def test_automodel_is_seen_once_and_behind_its_scaling(recording, monkeypatch):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    library = module(AUTOMODEL, automodel, monkeypatch)
    started = recording(model)
    norms = []
    for limit in (0.25, 0.25, None):
        backward(model)
        norms.append(whole(model) / 2)
        library.scale_grads_and_clip_grad_norm(limit, [model])
        optimizer.step()
    started.close()
    with Run.open(started.path) as run:
        assert run.steps().norm == pytest.approx(norms)
        assert run.steps().threshold[:2].tolist() == [0.25, 0.25]
        clips = [event.function for *_, events in run.events() for event in events if event.kind == "clip"]
    assert clips == ["clip_grad_norm"] * 2  # PyTorch's own, which it calls, is no second one; and without a limit there is none


@pytest.fixture
def replacing():
    """Clip with a recipe in place of the script's own clipping, and return what was said."""
    from gradclip.runs.writer import RunWriter
    from gradclip.watch.observe.session import Session
    from gradclip.watch.record.recorder import Recorder

    started = []

    def start(recipe, folder):
        said = []
        instead = ReplaceClipping(Clipping.parse(recipe), said.append)
        session = Session(Recorder(lambda: RunWriter.create(folder)))
        started.append((Patches(lambda: session, instead, said.append), session))
        return instead, said

    yield start
    for patches, session in started:
        patches.remove()
        session.close()


@pytest.mark.parametrize(
    ("name", "clip", "kind"),
    [(TITAN, titan, torch.Tensor), (AUTOMODEL, automodel, torch.Tensor), (AUTOMODEL, automodel_of_before, float)],
)
def test_the_librarys_clipping_is_left_out_and_its_norm_returned(name, clip, kind, replacing, tmp_path, monkeypatch):
    model = net()
    library = module(name, clip, monkeypatch)
    instead, said = replacing("global_norm:0.125", tmp_path)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(2):
        before = [p.detach().clone() for p in model.parameters()]
        backward(model)
        norm = whole(model)
        assert norm > 0.25
        if name == TITAN:
            returned = library.clip_grad_norm_(model.parameters(), 1e-6)
        else:
            returned = library.scale_grads_and_clip_grad_norm(1e-6, [model])
            norm /= 2
        assert type(returned) is kind
        assert float(returned) == pytest.approx(norm)
        assert whole(model) == pytest.approx(norm)
        optimizer.step()
        moved = [(p.detach() - b).square().sum() for p, b in zip(model.parameters(), before, strict=True)]
        assert math.sqrt(sum(map(float, moved))) == pytest.approx(0.125, rel=1e-5)
    assert instead.left_out == 2
    assert said == []


@pytest.mark.parametrize("name", [TITAN, AUTOMODEL])
def test_over_pipeline_stages_the_script_is_stopped(name, replacing, tmp_path, monkeypatch):
    model = net()
    library = module(name, titan if name == TITAN else automodel, monkeypatch)
    instead, said = replacing("global_norm:0.125", tmp_path)
    backward(model)
    before = [p.grad.clone() for p in model.parameters()]
    clip = library.clip_grad_norm_ if name == TITAN else library.scale_grads_and_clip_grad_norm
    stages = {"pp_mesh": Mesh(2)} if name == TITAN else {"pp_enabled": True, "num_label_tokens": 1}
    with pytest.raises(SystemExit, match=r"^2$"):
        clip(0.5, [model], **stages) if name == AUTOMODEL else clip(model.parameters(), 0.5, **stages)
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), before, strict=True))
    assert instead.left_out == 0
    (sentence,) = said
    assert "pipeline stages" in sentence
