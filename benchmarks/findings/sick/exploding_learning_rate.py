"""Linear regression on features of very different sizes: the learning rate is above the stable one, and it diverges.

Expects: exploding-gradient, loss-spike, update-too-large, non-finite-gradient
"""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(256, 5) * torch.tensor([1.0, 2.0, 5.0, 10.0, 20.0])
y = x @ torch.tensor([1.0, -1.0, 0.5, 0.2, 0.1]) + 0.1 * torch.randn(256)
model = nn.Linear(5, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for epoch in range(100):
    loss = nn.functional.mse_loss(model(x).squeeze(1), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if epoch % 20 == 0:
        print(epoch, loss.item())
