"""A threshold in the middle of the ordinary scatter of the norms: every other step is shortened, by chance.

Expects: threshold-in-the-noise
"""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(20)
model = nn.Linear(20, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(300):
    x = torch.randn(16, 20)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x @ truth + 4 * torch.randn(16))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
