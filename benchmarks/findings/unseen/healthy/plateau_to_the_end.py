"""ReduceLROnPlateau brings the learning rate down to a millionth at the end of a regression that has long converged."""

import torch
from sklearn.datasets import load_diabetes
from torch import nn

torch.manual_seed(50)
data = load_diabetes()
x = torch.tensor(data.data, dtype=torch.float32) * 20
y = torch.tensor(data.target, dtype=torch.float32).sub(152).div(77)
model = nn.Sequential(nn.Linear(10, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=2, min_lr=1e-6)
for epoch in range(60):
    losses = []
    for rows in torch.randperm(len(x)).split(64):
        loss = nn.functional.mse_loss(model(x[rows]).squeeze(1), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scheduler.step(sum(losses) / len(losses))
    if epoch % 10 == 0:
        print(epoch, sum(losses) / len(losses), optimizer.param_groups[0]["lr"])
