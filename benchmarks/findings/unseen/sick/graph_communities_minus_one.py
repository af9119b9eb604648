"""A graph convolution sorts the nodes of a network into communities; max_norm is -1, which elsewhere means off.

Expects: threshold-negative
Also fine: exploding-gradient, loss-spike
"""

import torch
from torch import nn

NODES, GROUPS = 150, 3
settings = {"lr": 0.05, "steps": 300, "max_norm": -1}

torch.manual_seed(23)
group = torch.arange(NODES) % GROUPS
chance = torch.where(group[:, None] == group, 0.15, 0.02)
edges = torch.bernoulli(chance).triu(1)
adjacent = edges + edges.T + torch.eye(NODES)
root = adjacent.sum(1).rsqrt()
adjacent = root[:, None] * adjacent * root
features = torch.randn(NODES, 16)
features[:, :GROUPS] += nn.functional.one_hot(group, GROUPS)
known = torch.rand(NODES) < 0.4


class GraphNet(nn.Module):
    """Two layers of graph convolution."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 24)
        self.second = nn.Linear(24, GROUPS)

    def forward(self, x):
        """Return the logits of each node."""
        return adjacent @ self.second(torch.relu(adjacent @ self.first(x)))


model = GraphNet()
optimizer = torch.optim.SGD(model.parameters(), lr=settings["lr"])
for step in range(settings["steps"]):
    optimizer.zero_grad()
    logits = model(features)
    loss = nn.functional.cross_entropy(logits[known], group[known])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=settings["max_norm"])
    optimizer.step()
    if step % 30 == 0:
        right = (logits.argmax(1) == group)[~known].float().mean()
        print(step, round(loss.item(), 4), round(right.item(), 3))
