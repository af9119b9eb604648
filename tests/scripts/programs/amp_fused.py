"""A fused optimizer, which unscales and drops steps inside its kernel; at last clipped before they are unscaled, a mistake."""

import torch
from torch import nn
from truth import Truth, data, norm

torch.manual_seed(0)
truth = Truth()
model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
for step in range(8):
    x, y = data()
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x)
    loss = nn.functional.mse_loss(output.float(), y) * (1e38 if step == 3 else 1.0)
    scaler.scale(loss).backward()
    scale = scaler.get_scale()
    columns = {"norm": norm(model.parameters()) / scale} if step != 3 else {}
    if step > 5:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
        columns |= {"clipped_norm": norm(model.parameters()) / scale, "threshold": 10.0}
    truth.step(loss=loss.item(), skipped=step == 3, amp_scale=scale, **columns)
    scaler.step(optimizer)
    scaler.update()
    print(repr(loss.item()), scaler.get_scale())
truth.save()
