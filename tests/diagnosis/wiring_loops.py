"""Small trainings with one wiring mistake each, and twins that do it right."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import torch
from torch import nn

import gradclip

STEPS = 6
clip, clip_value = nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_


def setting(rate=0.05):
    """A model of two layers (4 tensors), its optimizer, and a loss."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    x = torch.randn(8, 3)
    return SimpleNamespace(model=model, optimizer=optimizer, loss=lambda: (model(x) - 9 * x.sum(1, keepdim=True)).pow(2).mean())


def loop(before=None, ready=None, after=None, *, zero=True, micro=1, each=None):
    """An ordinary loop with a hook at each place where something may be called wrongly."""

    def train():
        s = setting()
        for _ in range(STEPS):
            if zero:
                s.optimizer.zero_grad()
            if before:
                before(s)
            for _ in range(micro):
                s.loss().backward()
                if each:
                    each(s)
            if ready:
                ready(s)
            s.optimizer.step()
            if after:
                after(s)

    return train


def all_of(s):
    clip(s.model.parameters(), 0.1)


def amp(wrong=False, fused=False, handle=False, limit=0.1):
    def train():
        s = setting()
        if fused:
            s.optimizer = torch.optim.SGD(s.model.parameters(), lr=0.05, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        attached = gradclip.attach(s.optimizer, "global_norm:0.1", scaler=scaler) if handle else None
        for _ in range(STEPS):
            s.optimizer.zero_grad()
            scaler.scale(s.loss()).backward()
            if not wrong and not handle:
                scaler.unscale_(s.optimizer)
            if not handle:
                clip(s.model.parameters(), limit)
            scaler.step(s.optimizer)
            scaler.update()
        if attached:
            attached.detach()

    return train


def exhausted(wrong):
    def train():
        s = setting()
        parameters = (p for p in s.model.parameters())
        parameters = list(parameters) if not wrong else parameters
        optimizer = torch.optim.SGD(parameters, lr=0.05)
        for _ in range(STEPS):
            optimizer.zero_grad()
            s.loss().backward()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                clip(parameters, 0.1)
            optimizer.step()

    return train


def attached():
    def train():
        s = setting()
        with gradclip.attach(s.optimizer, "global_norm:0.1"):
            for _ in range(STEPS):
                s.optimizer.zero_grad()
                s.loss().backward()
                s.optimizer.step()

    return train


def frozen():
    """All that is trained is clipped; the rest is frozen, and the optimizer has it all the same."""
    s = setting()
    for p in s.model[0].parameters():
        p.requires_grad_(False)
    for _ in range(STEPS):
        s.optimizer.zero_grad()
        s.loss().backward()
        clip([p for p in s.model.parameters() if p.requires_grad], 0.1)
        s.optimizer.step()


def heads(s):
    clip(s.model[2].parameters(), 0.1)


def bodies(s):
    clip(s.model[0].parameters(), 0.1)


def one_by_one(s):
    for p in s.model.parameters():
        clip(p, 0.1)


def elsewhere():
    other = nn.Linear(2, 1)
    other(torch.ones(1, 2)).sum().backward()
    return lambda s: clip(other.parameters(), 0.1)


def closures(make, *, reset=True, clips=True):
    def train():
        s = setting()
        optimizer = make(s.model.parameters())

        def closure():
            if reset:
                optimizer.zero_grad()
            else:
                for p in s.model.parameters():
                    p.grad = None
            loss = s.loss()
            loss.backward()
            if clips:
                all_of(s)
            return loss

        for _ in range(STEPS):
            optimizer.step(closure)

    return train


def by_hand(clips=all_of):
    s = setting()
    s.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(8, 3)
    for _ in range(STEPS):
        for _ in range(2):
            s.model(x).pow(2).mean().backward()
        clips(s)
        with torch.no_grad():
            for p in s.model.parameters():
                p -= 0.05 * p.grad  # noqa: PLW2901
                p.grad = None


def actor_critic():
    """Both are clipped before either steps."""
    a, b = setting(), setting()
    for _ in range(STEPS):
        for one in (a, b):
            one.optimizer.zero_grad()
        for one in (a, b):
            one.loss().backward()
            all_of(one)
        for one in (a, b):
            one.optimizer.step()


def one_optimizer_for_two(clips=(all_of, all_of)):
    """Two models with a loss each, of one optimizer; the models are clipped on their own."""
    a, b = setting(), setting()
    optimizer = torch.optim.SGD([*a.model.parameters(), *b.model.parameters()], lr=0.05)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for one, act in zip((a, b), clips, strict=True):
            one.loss().backward()
            if act:
                act(one)
        optimizer.step()


def gan(first=all_of, second=all_of, late=None, inner=1):
    """Two optimizers that take turns, the first perhaps more often."""

    def train():
        a, b = setting(), setting()
        for _ in range(STEPS):
            for one, act, times in ((a, first, inner), (b, second, 1)):
                for _ in range(times):
                    one.optimizer.zero_grad()
                    one.loss().backward()
                    if act:
                        act(one)
                    one.optimizer.step()
                    if one is b and late:
                        late(one)

    return train


def both_attached():
    a, b = setting(), setting()
    with gradclip.attach(a.optimizer, "global_norm:0.1"), gradclip.attach(b.optimizer, "global_norm:0.1"):
        for _ in range(STEPS):
            for one in (a, b):
                one.optimizer.zero_grad()
                one.loss().backward()
                one.optimizer.step()


def one_never_steps(right=False):
    def train():
        a, b = setting(), setting()
        for _ in range(2 * STEPS):
            for one in (a, b):
                one.optimizer.zero_grad()
            (a.loss() + b.loss()).backward()
            a.optimizer.step()
            if right:
                b.optimizer.step()

    return train


def perturbed():
    """As sharpness-aware minimisation does: a first gradient, clipped, moves the weights; a second one is used."""
    s = setting()
    for _ in range(STEPS):
        for sign in (1, -1):
            s.optimizer.zero_grad()
            s.loss().backward()
            all_of(s)
            with torch.no_grad():
                for p in s.model.parameters():
                    p += sign * 0.05 * p.grad  # noqa: PLW2901
        s.optimizer.step()


def both_by_closure(make):
    """Two optimizers that take turns, each with a closure that clips."""

    def train():
        a, b = setting(), setting()

        def closure(one, optimizer):
            optimizer.zero_grad()
            loss = one.loss()
            loss.backward()
            all_of(one)
            return loss

        turns = [(one, make(one.model.parameters())) for one in (a, b)]
        for _ in range(STEPS):
            for one, optimizer in turns:
                optimizer.step(lambda one=one, optimizer=optimizer: closure(one, optimizer))

    return train


def summed(act):
    """One backward for two optimizers."""

    def train():
        a, b = setting(), setting()
        for _ in range(STEPS):
            (a.loss() + b.loss()).backward()
            act(a, b)
            for one in (a, b):
                one.optimizer.step()
                one.model.zero_grad()

    return train


def together(a, b):
    clip([*a.model.parameters(), *b.model.parameters()], 0.1)


def two_under_one_scaler(wrong=False):
    """Two optimizers share a scaler, whose first steps overflow."""

    def train():
        a, b = setting(), setting()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=100, backoff_factor=2.0**-40)
        for _ in range(STEPS):
            for one in (a, b):
                one.optimizer.zero_grad()
            scaler.scale(a.loss() + b.loss()).backward()
            for one in (a, b):
                if not wrong:
                    scaler.unscale_(one.optimizer)
                all_of(one)
            for one in (a, b):
                scaler.step(one.optimizer)
            scaler.update()

    return train


def by_hand_and_then_by_an_optimizer():
    by_hand()
    loop(ready=all_of)()


def after_the_first_of_two_losses(s):
    all_of(s)
    s.loss().backward()


def handle_and_own():
    s = setting()
    with gradclip.attach(s.optimizer, "global_norm:0.1"):
        for _ in range(STEPS):
            s.optimizer.zero_grad()
            s.loss().backward()
            all_of(s)
            s.optimizer.step()


RIGHT = {
    "both by closures": both_by_closure(lambda p: torch.optim.SGD(p, lr=0.05)),
    "both by closures of several evaluations": both_by_closure(lambda p: torch.optim.LBFGS(p, max_iter=3)),
    "one backward, clipped apart": summed(lambda a, b: (all_of(a), all_of(b))),
    "one backward, clipped together": summed(together),
    "one backward, clipped together and in part": summed(
        lambda a, b: clip([*a.model.parameters(), *b.model[2].parameters()], 0.1)
    ),
    "two under one scaler": two_under_one_scaler(),
    "by hand, then by an optimizer": by_hand_and_then_by_an_optimizer,
    "unclipped": loop(),
    "clipped": loop(ready=all_of),
    "accumulation": loop(ready=all_of, micro=3),
    "by value": loop(ready=lambda s: clip_value(s.model.parameters(), 0.1)),
    "attached": attached(),
    "tensor by tensor": loop(ready=one_by_one),
    "tensor by tensor over micro-batches": loop(ready=one_by_one, micro=3),
    "part by part": loop(ready=lambda s: (heads(s), bodies(s))),
    "part by part, by two functions": loop(ready=lambda s: (heads(s), clip_value(s.model[0].parameters(), 0.1))),
    "clipped, then measured": loop(ready=lambda s: (all_of(s), clip(s.model.parameters(), float("inf")))),
    "only measured, in part": loop(ready=lambda s: clip(s.model[0].parameters(), float("inf"))),
    "frozen": frozen,
    "amp": amp(),
    "amp, fused": amp(fused=True),
    "amp, attached": amp(handle=True),
    "amp, fused and attached": amp(fused=True, handle=True),
    "amp, a threshold for scaled gradients": amp(wrong=True, limit=1024.0),
    "list": exhausted(wrong=False),
    "closure": closures(lambda p: torch.optim.SGD(p, lr=0.05)),
    "closure of several evaluations": closures(lambda p: torch.optim.LBFGS(p, max_iter=3)),
    "closure of several evaluations, reset by hand": closures(lambda p: torch.optim.LBFGS(p, max_iter=3), reset=False),
    "by hand": by_hand,
    "actor and critic": actor_critic,
    "one optimizer for two losses": one_optimizer_for_two,
    "one optimizer for two losses, one clipped": lambda: one_optimizer_for_two((all_of, None)),
    "turns": gan(),
    "turns, one clipped": gan(first=None),
    "turns, one more often": gan(inner=3),
    "both attached": both_attached,
    "both step": one_never_steps(right=True),
    "a second gradient": perturbed,
}

WRONG = {
    "clip-after-step": (
        loop(after=all_of),
        loop(after=all_of, micro=2),
        loop(after=one_by_one),
        gan(second=None, late=all_of),
        gan(second=None, late=all_of, inner=3),
    ),
    "clip-before-backward": (
        loop(before=all_of),
        loop(before=one_by_one, micro=2),
        loop(ready=after_the_first_of_two_losses),
    ),
    "clip-before-unscale": (amp(wrong=True), amp(wrong=True, fused=True)),
    "clip-per-micro-batch": (loop(micro=3, each=all_of), loop(micro=3, each=one_by_one)),
    "clip-exhausted-generator": (exhausted(wrong=True),),
    "clip-wrong-parameters": (loop(ready=heads), loop(ready=elsewhere()), loop(micro=2, ready=heads)),
    "clipped-twice": (
        loop(ready=lambda s: (all_of(s), all_of(s))),
        loop(ready=lambda s: (clip(s.model.parameters(), 0.1), clip(s.model.parameters(), 0.2))),
        loop(ready=lambda s: (all_of(s), clip_value(s.model.parameters(), 0.01))),
        loop(ready=lambda s: (one_by_one(s), heads(s))),
        handle_and_own,
    ),
    "zero-grad-missing": (loop(zero=False), loop(zero=False, ready=all_of)),
    "zero-grad-before-step": (loop(ready=lambda s: s.optimizer.zero_grad()),),
    "backward-without-step": (one_never_steps(),),
}
