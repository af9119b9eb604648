"""Mixed precision with gradclip attached and told of the scaler: no order left to get wrong."""

import torch
from torch import nn

import gradclip

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
gradclip.attach(optimizer, gradclip.global_norm(5.0), scaler=scaler, parameters=model)
for step in range(200):
    x = torch.randn(32, 16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.mse_loss(model(x).squeeze(1), x[:, 0] - x[:, 1])
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    if step % 40 == 0:
        print(step, loss.item())
