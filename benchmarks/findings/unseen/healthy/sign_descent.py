"""A home-made optimizer that uses the signs of a momentum, as Lion does: all its steps are equally long."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class SignDescent(torch.optim.Optimizer):
    """Step by the sign of an average of the gradients."""

    def __init__(self, params, lr=1e-3, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        """Take a step."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    average = self.state[p].setdefault("average", torch.zeros_like(p))
                    average.lerp_(p.grad, 1 - group["beta"])
                    p.sub_(average.sign(), alpha=group["lr"])


torch.manual_seed(46)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
optimizer = SignDescent(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=250)
for step in range(250):
    batch = torch.randint(len(x), (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step % 50 == 0:
        print(step, loss.item())
