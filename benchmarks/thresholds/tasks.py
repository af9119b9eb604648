"""The tasks: each trains something small with a given method and returns how well it ended.

Metrics are losses (lower is better) averaged over the end of training, so that a lucky last step does not decide. All
randomness comes from the seed; nothing is downloaded.
"""

from __future__ import annotations

import math
import pydoc_data.topics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

import gradclip

__all__ = ["TASKS", "Outcome", "Task"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the metric, and the share of its steps that were clipped."""

    metric: float
    clipped: float


@dataclass(frozen=True)
class Task:
    """A training problem with everything fixed but the method of clipping and the seed."""

    name: str
    needs: bool
    """Whether clipping is expected to matter; the others are controls."""
    run: Callable[[gradclip.Clipping, int], Outcome]
    held_out: bool = False
    """Never looked at while the defaults of ``auto`` were chosen."""


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_at: Callable[[int], Tensor], steps: int,
    clipping: gradclip.Clipping, last: int = 30,
) -> Outcome:  # fmt: skip
    """Train and return the mean loss of the last steps; a loss that is not finite ends the run as it is."""
    handle = gradclip.attach(optimizer, clipping, parameters=model)
    losses, clipped = [], 0
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_at(step)
        loss.backward()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        try:
            optimizer.step()
        except gradclip.NonFiniteGradientError:
            losses.append(math.inf)
            break
        clipped += bool(handle.result.clipped)
    handle.detach()
    tail = losses[-last:]
    metric = math.inf if not all(map(math.isfinite, tail)) else math.fsum(tail) / len(tail)
    return Outcome(metric, clipped / len(losses))


# --- character models on real text ------------------------------------------------------------------------------------


@cache
def text() -> tuple[Tensor, int]:
    """Python's own documentation as character numbers, and how many characters there are."""
    words = "".join(pydoc_data.topics.topics.values())
    letters = sorted(set(words))
    index = {letter: i for i, letter in enumerate(letters)}
    return torch.tensor([index[letter] for letter in words]), len(letters)


def windows(generator: torch.Generator, batch: int, length: int) -> Tensor:
    """Random windows of text, ``length + 1`` characters each."""
    data, _ = text()
    starts = torch.randint(len(data) - length - 1, (batch, 1), generator=generator)
    return data[starts + torch.arange(length + 1)]


class CharModel(nn.Module):
    """An embedding, a recurrent layer, a linear layer."""

    def __init__(self, kind: type[nn.RNN] | type[nn.LSTM] | type[nn.GRU], hidden: int) -> None:
        super().__init__()
        size = text()[1]
        self.embedding = nn.Embedding(size, hidden)
        self.recurrent = kind(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits for the next character at every place."""
        return self.head(self.recurrent(self.embedding(x))[0])


class Transformer(nn.Module):
    """A causal transformer of two small layers."""

    def __init__(self, width: int = 48, length: int = 32) -> None:
        super().__init__()
        size = text()[1]
        self.embedding, self.place = nn.Embedding(size, width), nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, size)
        self.register_buffer("mask", torch.triu(torch.full((length, length), -torch.inf), 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits for the next character at every place."""
        return self.head(self.layers(self.embedding(x) + self.place, self.mask, is_causal=True))


def char_task(
    name: str,
    needs: bool,
    model: Callable[[], nn.Module],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    held_out: bool = False,
) -> Task:
    """A character model trained for 200 steps; the metric is bits per character."""

    def run(clipping: gradclip.Clipping, seed: int) -> Outcome:
        torch.manual_seed(seed)
        net = model()
        generator = torch.Generator().manual_seed(seed)

        def loss_at(step: int) -> Tensor:
            batch = windows(generator, 16, 32)
            return nn.functional.cross_entropy(net(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()) / math.log(2)

        return train(net, optimizer(net), loss_at, 200, clipping)

    return Task(name, needs, run, held_out)


# --- other tasks ------------------------------------------------------------------------------------------------------


def cliff(clipping: gradclip.Clipping, seed: int) -> Outcome:
    """The cliff of Pascanu et al. 2013, figure 6: one neuron over 50 steps; the seed moves the start a little.

    The metric is the root of the loss, the distance from the target, plus 0.01: less than that is no difference.
    """
    torch.manual_seed(seed)
    point = nn.ParameterList([torch.tensor(5.2), torch.tensor(-2.6)])
    with torch.no_grad():
        point[0] += 0.02 * torch.randn(())

    def loss_at(step: int) -> Tensor:
        x = torch.tensor(0.5)
        for _ in range(50):
            x = point[0] * torch.sigmoid(x) + point[1]
        return (torch.sigmoid(x) - 0.7) ** 2

    outcome = train(point, torch.optim.SGD(point.parameters(), lr=0.05), loss_at, 600, clipping)
    return Outcome(math.sqrt(outcome.metric) + 0.01, outcome.clipped)


def heavy_noise(clipping: gradclip.Clipping, seed: int) -> Outcome:
    """A product of three inputs under rank-1 Pareto noise on the gradient (after arXiv 2605.11838), validation error."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(100, 100, bias=False), nn.ReLU(), nn.Linear(100, 100, bias=False), nn.ReLU(), nn.Linear(100, 1, bias=False)
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    held = torch.randn(1024, 100, generator=generator)
    tail = torch.distributions.Pareto(5.0, 1.1)  # scale, exponent: infinite variance

    def product(x: Tensor) -> Tensor:
        return x[:, 0] * x[:, 1] * x[:, 2]

    def loss_at(step: int) -> Tensor:
        x = torch.randn(32, 100, generator=generator)
        return (net(x)[:, 0] - product(x)).square().mean()

    def add_noise(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        for p in net.parameters():
            if torch.rand((), generator=generator) < 0.1:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
                    u, v = torch.randn(p.shape[0]), torch.randn(p.shape[1])
                    p.grad += tail.sample() * torch.outer(u / u.norm(), v / v.norm())

    optimizer.register_step_pre_hook(add_noise)
    outcome = train(net, optimizer, loss_at, 3000, clipping)
    with torch.no_grad():
        error = (net(held)[:, 0] - product(held)).square().mean().item()
    return Outcome(error if math.isfinite(error) and math.isfinite(outcome.metric) else math.inf, outcome.clipped)


def quartic(clipping: gradclip.Clipping, seed: int) -> Outcome:
    """``f = sum x^4`` from far away: its curvature grows with the gradient, as under (L0, L1)-smoothness.

    The metric is the norm of x at the end, plus 0.1.
    """
    torch.manual_seed(seed)
    x = nn.ParameterList([30 + torch.randn(10)])
    optimizer = torch.optim.SGD(x.parameters(), lr=1e-2)
    outcome = train(x, optimizer, lambda step: (x[0] ** 4).sum(), 400, clipping, last=1)
    return Outcome(outcome.metric**0.25 + 0.1, outcome.clipped)


def running_sum(clipping: gradclip.Clipping, seed: int) -> Outcome:
    """Add up fifty numbers with an LSTM; the metric is the squared error, where always saying 0 costs 50."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    recurrent, head = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 1)
    net = nn.ModuleList([recurrent, head])

    def loss_at(step: int) -> Tensor:
        x = torch.randn(32, 50, 1, generator=generator)
        return (head(recurrent(x)[0][:, -1])[:, 0] - x.sum((1, 2))).square().mean()

    return train(net, torch.optim.SGD(net.parameters(), lr=0.1), loss_at, 300, clipping)


def autoencoder(clipping: gradclip.Clipping, seed: int) -> Outcome:
    """A deep autoencoder with momentum on low-rank data; the metric is the squared error plus 0.01."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(6, 48, generator=generator)
    sizes = [48, 64, 32, 6, 32, 64, 48]
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.Tanh())][:-1]
    net = nn.Sequential(*layers)

    def loss_at(step: int) -> Tensor:
        x = torch.randn(64, 6, generator=generator) @ basis
        return (net(x) - x).square().mean()

    outcome = train(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), loss_at, 500, clipping)
    return Outcome(outcome.metric + 0.01, outcome.clipped)


def blobs(deep: bool, clip_matters: bool, lr: float, name: str, adam: bool = False) -> Task:
    """Classify ten blobs with an MLP; the metric is the cross-entropy on fresh points."""

    def run(clipping: gradclip.Clipping, seed: int) -> Outcome:
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        centres = 1.2 * torch.randn(10, 16, generator=generator)
        sizes = [16] + [64] * (8 if deep else 2)
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        net = nn.Sequential(*layers, nn.Linear(64, 10))
        if deep:  # gains that are too large: activations and gradients grow with depth
            for layer in net:
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=2.2 / layer.in_features**0.5)
        build = torch.optim.Adam if adam else torch.optim.SGD

        def loss_at(step: int) -> Tensor:
            labels = torch.randint(10, (64,), generator=generator)
            points = centres[labels] + torch.randn(64, 16, generator=generator)
            return nn.functional.cross_entropy(net(points), labels)

        return train(net, build(net.parameters(), lr=lr), loss_at, 400, clipping)

    return Task(name, clip_matters, run)


def wild_labels(clipping: gradclip.Clipping, seed: int) -> Outcome:
    """Regression on labels with Student noise (df 1.2); the metric is the error without it, squared, plus 0.01."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(12, generator=generator) / 12**0.5
    net = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    noise = torch.distributions.StudentT(1.2)
    held = torch.randn(1024, 12, generator=generator)

    def loss_at(step: int) -> Tensor:
        x = torch.randn(32, 12, generator=generator)
        return (net(x)[:, 0] - torch.sin(2 * x @ teacher) - 0.3 * noise.sample((32,))).square().mean()

    outcome = train(net, torch.optim.SGD(net.parameters(), lr=0.05), loss_at, 600, clipping)
    with torch.no_grad():
        error = (net(held)[:, 0] - torch.sin(2 * held @ teacher)).square().mean().item() + 0.01
    return Outcome(error if math.isfinite(error) and math.isfinite(outcome.metric) else math.inf, outcome.clipped)


def bad_batches(clipping: gradclip.Clipping, seed: int) -> Outcome:
    """Classify blobs with Adam where one batch in fifty is multiplied by a thousand; the metric is the clean cross-entropy."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, 16, generator=generator)
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def batch(size: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(10, (size,), generator=generator)
        return centres[labels] + torch.randn(size, 16, generator=generator), labels

    def loss_at(step: int) -> Tensor:
        points, labels = batch(64)
        bad = torch.rand((), generator=generator) < 0.02
        return nn.functional.cross_entropy(net(1000 * points if bad else points), labels)

    outcome = train(net, torch.optim.Adam(net.parameters(), lr=0.003), loss_at, 400, clipping)
    with torch.no_grad():
        points, labels = batch(2048)
        loss = nn.functional.cross_entropy(net(points), labels).item()
    return Outcome(loss if math.isfinite(loss) else math.inf, outcome.clipped)


def sgd(lr: float, momentum: float = 0.0) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """SGD, plain unless momentum is given."""
    return lambda net: torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)


def adam(lr: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Adam with its defaults."""
    return lambda net: torch.optim.Adam(net.parameters(), lr=lr)


TASKS: tuple[Task, ...] = (
    char_task("char RNN, SGD 4", True, lambda: CharModel(nn.RNN, 64), sgd(4.0)),
    char_task("char RNN, SGD 0.5", False, lambda: CharModel(nn.RNN, 64), sgd(0.5)),
    char_task("char LSTM, SGD 20", True, lambda: CharModel(nn.LSTM, 64), sgd(20.0)),
    char_task("char LSTM, Adam 0.01", False, lambda: CharModel(nn.LSTM, 64), adam(0.01)),
    char_task("transformer, Adam 0.003", False, Transformer, adam(0.003)),
    char_task("transformer, SGD 1", True, Transformer, sgd(1.0)),
    blobs(True, True, 0.05, "deep MLP, SGD 0.05"),
    blobs(False, False, 0.1, "MLP, SGD 0.1"),
    blobs(False, False, 0.01, "MLP, Adam 0.01", adam=True),
    Task("heavy noise, SGD momentum", True, heavy_noise),
    Task("cliff, SGD", True, cliff),
    Task("quartic, SGD", True, quartic),
    char_task("char GRU, SGD 8", True, lambda: CharModel(nn.GRU, 64), sgd(8.0)),
    Task("running sum LSTM, SGD 0.1", True, running_sum),
    Task("autoencoder, SGD momentum", False, autoencoder),
    char_task("char RNN, SGD 0.5 momentum", True, lambda: CharModel(nn.RNN, 64), sgd(0.5, 0.9), held_out=True),
    Task("wild labels, SGD 0.05", True, wild_labels, held_out=True),
    Task("bad batches, Adam 0.003", True, bad_batches, held_out=True),
)
"""Every task of the tournament, hard ones and controls."""
