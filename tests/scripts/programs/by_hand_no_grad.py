"""Updates by hand under no_grad, clipped by torch's function, over two micro-batches; then in the functional style."""

import torch
from torch import nn
from truth import Truth, data, norm

torch.manual_seed(1)
truth = Truth()
model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))


def train(steps):
    for _ in range(steps):
        total = 0.0
        for _ in range(2):
            x, y = data()
            loss = (model(x) - y).pow(2).mean() / 2
            loss.backward()
            total += loss.item()
        before = norm(model.parameters())
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        truth.step(loss=total, norm=before, clipped_norm=norm(model.parameters()), threshold=1.0, clipped=before > 1.0)
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.05 * p.grad  # noqa: PLW2901
                p.grad = None
        print(repr(total))


train(12)
truth.save()
