"""Wiring mistakes that torch lets pass: clipping after the step, of nothing, of one tensor, twice; a warning is printed."""

import torch
from torch import nn
from truth import Truth, data, norm

torch.manual_seed(0)
truth = Truth()
x, y = data()
model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
clip = torch.nn.utils.clip_grad_norm_
for step in range(6):
    loss = (model(x) - y).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    before = norm(model.parameters())
    columns = {"loss": loss.item(), "norm": before, "threshold": None}
    if step == 2:
        parameters = (p for p in model.parameters())
        list(parameters)
        clip(parameters, 0.1)
    elif step in (3, 4):
        clip(model[2].bias, 0.1)
        columns |= {"threshold": 0.1, "clipped_norm": norm(model.parameters()), "clipped": True}
    if step == 4:
        torch.nn.utils.clip_grad_value_(model.parameters(), 0.05)
        columns |= {"threshold": 0.05, "clipped_norm": norm(model.parameters())}
    optimizer.step()
    truth.step(**columns)
    if step < 2:
        clip(model.parameters(), 0.1)
    print(repr(loss.item()))
usual = ("zero_grad", "forward", "backward")
truth.order(0, *usual, "step")
truth.order(1, "clip", *usual, "step")
truth.order(2, "clip", *usual, "clip", "step")
truth.order(4, *usual, "clip", "clip", "step")
truth.save()
