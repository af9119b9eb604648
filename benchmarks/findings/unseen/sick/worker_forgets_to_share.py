"""An actor-critic worker trains a net of its own, but never hands its gradients to the shared net, whose optimizer steps.

Expects: optimizer-without-gradients
"""

import copy

import torch
from torch import nn

torch.manual_seed(31)
shared = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 3))
local = copy.deepcopy(shared)
optimizer = torch.optim.RMSprop(shared.parameters(), lr=7e-4)
for episode in range(120):
    local.load_state_dict(shared.state_dict())
    observed = torch.randn(20, 4)
    out = local(observed)
    chosen = torch.distributions.Categorical(logits=out[:, :2])
    action = chosen.sample()
    reward = torch.where(action == (observed[:, 0] > 0), 1.0, 0.0)
    advantage = reward - out[:, 2]
    loss = -(chosen.log_prob(action) * advantage.detach()).mean() + 0.5 * advantage.square().mean()
    local.zero_grad()
    loss.backward()
    optimizer.step()
    if episode % 20 == 0:
        print(episode, reward.mean().item())
