"""Mixed precision in float16 with a GradScaler, unscaled and clipped as the manual says; one step overflows."""

import torch
from torch import nn
from truth import Truth, data, norm

torch.manual_seed(0)
truth = Truth()
model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
for step in range(10):
    x, y = data()
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.float16):
        output = model(x)
        loss = nn.functional.mse_loss(output.float(), y)
    if step == 4:
        loss = loss * 1e38
    scaler.scale(loss).backward()
    scale = scaler.get_scale()
    scaler.unscale_(optimizer)
    before = norm(model.parameters())
    if step == 4:
        columns = {"loss": loss.item(), "skipped": True, "nonfinite": 4, "amp_scale": scale}
    else:
        columns = {"loss": loss.item(), "skipped": False, "nonfinite": 0, "norm": before, "amp_scale": scale}
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    if step != 4:
        columns |= {"clipped_norm": norm(model.parameters()), "threshold": 0.5}
    truth.step(**columns)
    truth.order(step, "zero_grad", "forward", "backward", "unscale", "clip", "step")
    scaler.step(optimizer)
    scaler.update()
    print(repr(loss.item()), scaler.get_scale())
truth.save()
