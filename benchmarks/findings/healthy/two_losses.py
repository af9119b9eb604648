"""Two losses go backward one after the other into the same gradients, then one step."""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
label, pixels = nn.Linear(64, 10), nn.Linear(64, 64)
parameters = [*trunk.parameters(), *label.parameters(), *pixels.parameters()]
optimizer = torch.optim.Adam(parameters, lr=3e-3)
for step in range(200):
    batch = torch.randint(0, len(x), (32,))
    features = trunk(x[batch])
    optimizer.zero_grad()
    nn.functional.cross_entropy(label(features), y[batch]).backward(retain_graph=True)
    loss = nn.functional.mse_loss(pixels(features), x[batch])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 3.0)
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
