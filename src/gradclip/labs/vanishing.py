"""The vanishing gradient: 20 layers, and what is left of the gradient at the first.

On its way back each sigmoid layer multiplies the gradient by its slope, at most 1/4, and by weights that do not make up for
it: 20 layers later nothing is left. Each arm changes one thing.

What to look at:

- sigmoid: a straight line on a logarithmic axis, which is an exponential fall towards the input;
- ReLU and GELU with He's initialisation, tanh with Xavier's: weights that keep the variance keep the gradient;
- batch norm, layer norm, residual connections: the same sigmoid and the same initialisation, and the gradient arrives;
- sigmoid with clipping: clipping makes a large gradient smaller, all layers alike, and has nothing to say where it is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from gradclip import clip_, tensor_norms
from gradclip.labs.lab import Arm, Curves, Lab, Values, last_mean
from gradclip.labs.pictures import against, listed, middle
from gradclip.report.charts import COLOURS, Chart, Line

DEPTH, WIDTH, CLASSES, BATCH = 20, 64, 10, 64
VANISHED = 1e-3
"""Less than this share at the first layer, and the first layer stands still while the last one learns."""
FIRST = 10
"""The gradient is looked at in the first steps, before the nets differ in what they have learnt."""

# --- data -------------------------------------------------------------------------------------------------------------


def batch(centres: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of shape (batch, width) around the centres of their classes, and the classes, of shape (batch,)."""
    classes = torch.randint(CLASSES, (BATCH,), generator=generator)
    return centres[classes] + torch.randn(BATCH, WIDTH, generator=generator), classes


# --- model ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What a net is made of."""

    activation: Callable[[], nn.Module] = nn.Sigmoid
    start: Callable[[Tensor], Tensor] | None = None
    """Initialises the weights; PyTorch's own if None."""
    norm: Callable[[int], nn.Module] | None = None
    residual: bool = False


KINDS = {
    "sigmoid": Kind(),
    "ReLU with He": Kind(nn.ReLU, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
    "GELU with He": Kind(nn.GELU, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
    "tanh with Xavier": Kind(nn.Tanh, lambda w: nn.init.xavier_normal_(w, nn.init.calculate_gain("tanh"))),
    "sigmoid with batch norm": Kind(norm=nn.BatchNorm1d),
    "sigmoid with layer norm": Kind(norm=nn.LayerNorm),
    "sigmoid with residual": Kind(residual=True),
}


class Layer(nn.Module):
    """A norm, if any, a linear layer, an activation, and around them a way past, if any."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.norm = kind.norm(WIDTH) if kind.norm else nn.Identity()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.activation = kind.activation()
        self.residual = kind.residual
        if kind.start:
            kind.start(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, width) to the same."""
        y = self.activation(self.linear(self.norm(x)))
        return x + y if self.residual else y


def deep(kind: str) -> nn.Sequential:
    """20 layers, and a linear one to the classes."""
    return nn.Sequential(*(Layer(KINDS[kind]) for _ in range(DEPTH)), nn.Linear(WIDTH, CLASSES))


# --- training ---------------------------------------------------------------------------------------------------------


def train(arm: Arm, steps: int, seed: int) -> Iterator[Values]:
    """Train one arm; centres, weights and batches depend on the seed alone."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, WIDTH, generator=generator)
    model = deep(arm.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=arm.lr)
    for _ in range(steps):
        points, classes = batch(centres, generator)
        loss = F.cross_entropy(model(points), classes)
        optimizer.zero_grad()
        loss.backward()
        if arm.clips:
            clip_(model, arm.clip)
        optimizer.step()
        norms = tensor_norms(model)  # none where the step was skipped
        layers = {f"layer {i + 1}": norms.get(f"{i}.linear.weight", math.nan) for i in range(DEPTH)}
        yield {"loss": loss.item(), **layers}


# --- pictures and verdict ---------------------------------------------------------------------------------------------


def by_layer(curves: Curves) -> list[float]:
    """The gradient norm of each layer's weights that the optimizer got in the first steps, from the input to the output."""
    return [middle(norms[:FIRST]) for norms in curves.also.values()]


def fall(curves: Curves) -> float:
    """The norm at the first layer as a share of that at the last."""
    first, *_, last = by_layer(curves)
    return first / last if last else math.nan


def pictures(runs: Sequence[Curves]) -> list[Chart]:
    """The norm by layer: what mends it, and that clipping does not."""
    plain = [run for run in runs if run.arm.model == "sigmoid"]
    each = {run.arm.model: run for run in runs if not run.arm.clips}
    mends = (
        "From the input on the left to the output on the right: where the line is level, the first layer learns as fast as the "
        "last; sigmoid alone falls by the same factor at each layer."
    )
    clips = "Clipping lowers the whole line where it acts, and leaves it as steep: it cannot mend a gradient that vanishes."
    lines = [Line(name, by_layer(run), COLOUR[name], dashed=name in SECOND) for name, run in each.items()]
    alike = [Line(run.arm.method, by_layer(run), COLOUR["sigmoid"], dashed=not run.arm.clips) for run in plain]
    return [_by_layer("What mends it", mends, lines), _by_layer("Clipping does not: sigmoid", clips, alike)]


KIN = (
    ("sigmoid",), ("ReLU with He", "GELU with He"), ("tanh with Xavier",),
    ("sigmoid with batch norm", "sigmoid with layer norm"), ("sigmoid with residual",),
)  # fmt: skip
"""Nets that share a colour; the second is dashed."""
COLOUR = {name: COLOURS[i] for i, names in enumerate(KIN) for name in names}
SECOND = {names[1] for names in KIN if len(names) > 1}


def _by_layer(title: str, see: str, lines: Sequence[Line]) -> Chart:
    return against(title, see, lines, x="layer", y="gradient norm of its weights", log=True)


def judge(runs: Sequence[Curves]) -> str:
    """How much of the gradient reaches the first layer, sorted by whether it vanishes."""
    lost = [_share(run) for run in runs if not fall(run) > VANISHED]
    kept = [_share(run) for run in runs if fall(run) > VANISHED]
    said = [f"it {verb} in {listed(some)}" for verb, some in (("vanishes", lost), ("arrives", kept)) if some]
    return f"The gradient at the first of {DEPTH} layers, as a share of that at the last: {'; '.join(said)}."


def _share(run: Curves) -> str:
    clip = f" clipped by {run.arm.clip}" if run.arm.clips else ""
    return f"{run.arm.model}{clip} ({fall(run):.2g})"


LAB = Lab(
    name="vanishing",
    title="The vanishing gradient, what mends it, and that clipping does not",
    about=(
        f"{DEPTH} layers of {WIDTH} units sort points into {CLASSES} classes, with plain SGD and {BATCH} points a step. Each "
        f"arm changes one thing about the net. The norms by layer are medians of the first {FIRST} steps."
    ),
    arms=(
        Arm("sigmoid", 0.1),
        Arm("sigmoid", 0.1, "global_norm:0.1"),
        *(Arm(kind, 0.1) for kind in KINDS if kind != "sigmoid"),
    ),
    train=train,
    steps=300,
    score=lambda curves: last_mean(curves.losses),
    score_name="cross entropy",
    loss_name="cross entropy, nats",
    columns={"first layer / last": lambda run: f"{fall(run):.2g}"},
    pictures=pictures,
    judge=judge,
    detailed=lambda arm: arm.model in ("sigmoid", "tanh with Xavier"),
)
