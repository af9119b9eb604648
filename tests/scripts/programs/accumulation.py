"""Gradients of four micro-batches, clipped once, with the function imported by name."""

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from truth import Truth, data, norm

torch.manual_seed(0)
truth = Truth()
model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
accumulate, total, done = 4, 0.0, 0
for i in range(40):
    x, y = data()
    loss = nn.functional.mse_loss(model(x), y) / accumulate
    loss.backward()
    total += loss.item()
    if (i + 1) % accumulate == 0:
        before = norm(model.parameters())
        returned = clip_grad_norm_(model.parameters(), 1.0)
        after = norm(model.parameters())
        truth.step(loss=total, norm=before, clipped_norm=after, threshold=1.0, lr=0.1, clipped=before > 1.0)
        truth.order(done, *["forward", "backward"] * accumulate, "clip", "step")
        optimizer.step()
        model.zero_grad(set_to_none=True)
        print(repr(total), repr(returned.item()))
        total, done = 0.0, done + 1
truth.events = {step: [*(["zero_grad"] if step != "0" else []), *kinds] for step, kinds in truth.events.items()}
truth.save()
