"""gradclip was attached to the optimizer, and the old clip_grad_norm_ stayed in the loop with another threshold.

Expects: clipped-twice
Also fine: always-clipping, threshold-in-the-noise
"""

import torch
from torch import nn

import gradclip

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
gradclip.attach(optimizer, gradclip.global_norm(2.0), parameters=model)
for step in range(200):
    x = torch.randn(32, 10)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x @ truth)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
