"""RMSprop with a learning rate of 0.3, which SGD had before it was exchanged: every step moves each weight that far.

Expects: update-too-large
Also fine: exploding-gradient, loss-spike, dead-layer
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(14)
digits = load_digits()
rows = TensorDataset(torch.tensor(digits.images, dtype=torch.float32) / 16, torch.tensor(digits.target))
reader = nn.GRU(8, 24, batch_first=True)
out = nn.Linear(24, 10)
optimizer = torch.optim.RMSprop([*reader.parameters(), *out.parameters()], lr=0.3)
for epoch in range(4):
    for image, label in DataLoader(rows, batch_size=32, shuffle=True):
        loss = nn.functional.cross_entropy(out(reader(image)[0][:, -1]), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
