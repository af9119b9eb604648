"""Adam with a learning rate scheduler; the model resets its own gradients."""

import torch
from torch import nn
from truth import Truth, data, norm

torch.manual_seed(0)
truth = Truth()
x, y = data()
model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
for step in range(12):
    model.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    truth.step(loss=loss.item(), norm=norm(model.parameters()), lr=scheduler.get_last_lr()[0], nonfinite=0)
    truth.order(step, "zero_grad", "forward", "backward", "step")
    optimizer.step()
    scheduler.step()
    print(step, repr(loss.item()), scheduler.get_last_lr())
truth.save()
