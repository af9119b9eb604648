"""Lookahead around AdamW, with clipping, as a wrapper that is an optimizer itself."""

import torch
from torch import nn


class Lookahead(torch.optim.Optimizer):
    """Every k steps of the inner optimizer, the slow weights follow the fast ones."""

    def __init__(self, inner, k=5, alpha=0.5):
        super().__init__([p for group in inner.param_groups for p in group["params"]], {})
        self.inner, self.k, self.alpha, self.count = inner, k, alpha, 0
        self.param_groups = inner.param_groups
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]

    def step(self, closure=None):
        """Take a fast step, and now and then a slow one."""
        loss = self.inner.step(closure)
        self.count += 1
        if self.count % self.k == 0:
            with torch.no_grad():
                for slow, p in zip(self.slow, (p for g in self.param_groups for p in g["params"]), strict=True):
                    slow.lerp_(p, self.alpha)
                    p.copy_(slow)
        return loss


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 1))
optimizer = Lookahead(torch.optim.AdamW(model.parameters(), lr=3e-3))
x = torch.randn(256, 6)
y = x.sum(1, keepdim=True).sin()
for _ in range(250):
    batch = torch.randint(0, len(x), (32,))
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x[batch]), y[batch])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
print(loss.item())
