"""Twelve residual blocks with layer norm before each."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Block(nn.Module):
    """x + f(norm(x))."""

    def __init__(self, width):
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x):
        """Return it."""
        return x + self.inner(x)


torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 48), *[Block(48) for _ in range(12)], nn.LayerNorm(48), nn.Linear(48, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(150):
    batch = torch.randint(0, len(x), (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 30 == 0:
        print(step, loss.item())
