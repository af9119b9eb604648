"""Mixed precision that does unscale, one line too late: the threshold was compared with scaled gradients.

Expects: clip-before-unscale
Also fine: always-clipping, update-too-small
"""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
for step in range(150):
    x = torch.randn(32, 16)
    with torch.autocast("cpu", torch.float16):
        loss = nn.functional.cross_entropy(model(x), x[:, :4].argmax(1))
    scaler.scale(loss).backward()
    torch.nn.utils.clip_grad_value_(model.parameters(), 0.5)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    if step % 30 == 0:
        print(step, loss.item())
