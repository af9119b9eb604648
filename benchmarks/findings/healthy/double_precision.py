"""float64 throughout, with a large learning rate that is right for a small gradient: curve fitting with a polynomial."""

import torch

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
x = torch.linspace(-1, 1, 80)
y = (3 * x).sin()
features = torch.stack([x**power for power in range(6)], 1)
model = torch.nn.Linear(6, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
for step in range(300):
    loss = (model(features).squeeze(1) - y).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
