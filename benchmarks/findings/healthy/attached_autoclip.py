"""AutoClip at its tenth percentile clips nine steps in ten by design."""

import torch
from torch import nn

import gradclip

torch.manual_seed(0)
model = nn.ModuleDict({"rnn": nn.LSTM(4, 24, batch_first=True), "head": nn.Linear(24, 1)})
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
gradclip.attach(optimizer, gradclip.autoclip(10), parameters=model)
for step in range(200):
    x = torch.randn(16, 12, 4)
    hidden, _ = model["rnn"](x)
    loss = nn.functional.mse_loss(model["head"](hidden[:, -1]).squeeze(1), x[:, -3:].mean((1, 2)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
