"""Mixed precision in which the gradients are clipped while they still carry the loss scale of 8192.

Expects: clip-before-unscale
Also fine: always-clipping, update-too-small
"""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**13)
for step in range(150):
    x = torch.randn(32, 16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.mse_loss(model(x).squeeze(1), x[:, 0] + x[:, 1].square())
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    if step % 30 == 0:
        print(step, loss.item())
