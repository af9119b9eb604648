"""A stack of ten attention and feed-forward blocks without skip connections or norms: little comes back to the first.

Expects: vanishing-in-depth
Also fine: update-too-small
"""

import torch
from torch import nn


class Block(nn.Module):
    """Self-attention and a feed-forward layer, one after the other."""

    def __init__(self, width):
        super().__init__()
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(width, width), nn.Tanh())

    def forward(self, x):
        """Return what it attended to."""
        return self.feed(self.attend(x, x, x, need_weights=False)[0])


torch.manual_seed(0)
embed, out = nn.Linear(4, 16), nn.Linear(16, 1)
model = nn.Sequential(embed, *[Block(16) for _ in range(10)], out)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for step in range(60):
    x = torch.randn(16, 6, 4)
    loss = nn.functional.mse_loss(model(x).mean(1).squeeze(1), x[:, 0, 0] + x[:, 3, 1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(step, loss.item(), embed.weight.grad.norm().item(), out.weight.grad.norm().item())
