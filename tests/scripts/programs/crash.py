"""An error half-way, from within backward."""

import torch
from torch import nn
from truth import Truth, data, norm

torch.manual_seed(0)
truth = Truth()
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


def step(i):
    x, y = data()
    loss = (model(x) - y).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    if i == 4:
        truth.save()
        try:
            loss.backward()
        except RuntimeError as error:
            raise ValueError("the second backward") from error
    truth.step(loss=loss.item(), norm=norm(model.parameters()))
    optimizer.step()
    print(repr(loss.item()))


for i in range(9):
    step(i)
