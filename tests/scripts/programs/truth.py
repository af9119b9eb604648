"""What a program knows of its own training, by plain torch in float64; written where the variable TRUTH says."""

import json
import os

import torch


def norm(parameters):
    """The total gradient norm."""
    grads = [p.grad.coalesce() if p.grad.is_sparse else p.grad for p in parameters if p.grad is not None]
    return float(sum((g.double() ** 2).sum() for g in grads)) ** 0.5


class Truth:
    def __init__(self):
        self.steps = {}
        self.events = {}

    def step(self, optimizer=0, **columns):
        """Note one step: loss, norm, clipped_norm, threshold, lr, clipped, skipped, nonfinite, amp_scale."""
        self.steps.setdefault(str(optimizer), []).append(columns)

    def order(self, step, *kinds):
        """Note in which order things happen in one step."""
        self.events[str(step)] = kinds

    def save(self):
        if "TRUTH" in os.environ:
            with open(os.environ["TRUTH"], "w") as file:
                json.dump({"steps": self.steps, "events": self.events}, file)


def data(n=16, size=3):
    """Inputs and targets."""
    x = torch.randn(n, size)
    return x, x.sum(dim=1, keepdim=True) + 0.1 * torch.randn(n, 1)
