"""Adaptive gradient clipping behind zclip for the spikes, as a chain."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import gradclip

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
gradclip.attach(optimizer, gradclip.Chain(gradclip.zclip(), gradclip.agc(0.05)), parameters=model)
for step in range(200):
    batch = torch.randint(0, len(x), (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
