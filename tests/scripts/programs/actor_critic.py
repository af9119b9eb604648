"""Two nets that are both clipped before either steps, as reinforcement learning does."""

import torch
from torch import nn
from truth import Truth, data, norm

torch.manual_seed(3)
truth = Truth()
actor, critic = nn.Linear(3, 1), nn.Linear(3, 1)
optimizers = [torch.optim.SGD(net.parameters(), lr=0.01) for net in (actor, critic)]
for _ in range(8):
    x, y = data()
    for optimizer in optimizers:
        optimizer.zero_grad()
    total = 0.0
    for number, (net, bound) in enumerate([(actor, 0.3), (critic, 0.6)]):
        loss = (net(x) - y).pow(2).mean()
        loss.backward()
        before = norm(net.parameters())
        torch.nn.utils.clip_grad_norm_(net.parameters(), bound)
        truth.step(number, norm=before, clipped_norm=norm(net.parameters()), threshold=bound)
        total += loss.item()
    for optimizer in optimizers:
        optimizer.step()
    print(repr(total))
truth.save()
