"""A filter over the trainable parameters: the first clipping reads it to its end, all later ones clip nothing.

Expects: clip-exhausted-generator
"""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
model[0].bias.requires_grad_(False)
trainable = filter(lambda p: p.requires_grad, model.parameters())
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
for step in range(200):
    x = torch.randn(32, 10)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x[:, 0] * x[:, 1] + x[:, 2])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable, 1.0)
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
