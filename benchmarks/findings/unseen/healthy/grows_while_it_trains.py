"""A net that gets another layer every hundred steps; each is added to the optimizer as a group of its own."""

import torch
from torch import nn


class Growing(nn.Module):
    """Layers that are added up."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 24)
        self.more = nn.ModuleList()
        self.out = nn.Linear(24, 1)

    def grow(self):
        """Add a layer and return it."""
        self.more.append(nn.Linear(24, 24))
        return self.more[-1]

    def forward(self, x):
        """Return the prediction."""
        x = torch.sin(3 * self.first(x))
        for layer in self.more:
            x = x + torch.sin(layer(x))
        return self.out(x).squeeze(1)


torch.manual_seed(44)
net = Growing()
optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
for step in range(300):
    if step in (100, 200):
        optimizer.add_param_group({"params": net.grow().parameters()})
    x = 2 * torch.rand(64, 2) - 1
    loss = nn.functional.mse_loss(net(x), torch.sin(3 * x[:, 0]) * x[:, 1])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 2.0)
    optimizer.step()
    if step % 25 == 0:
        print(step, loss.item())
