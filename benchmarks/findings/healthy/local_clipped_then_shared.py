"""An actor-critic worker clips its own net, and hands the clipped gradients to the shared one, whose optimizer steps."""

import copy

import torch
from torch import nn

torch.manual_seed(0)
shared = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 3))
local = copy.deepcopy(shared)
optimizer = torch.optim.Adam(shared.parameters(), lr=3e-3)
for _episode in range(150):
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
    nn.utils.clip_grad_norm_(local.parameters(), 0.5)
    for ours, theirs in zip(local.parameters(), shared.parameters(), strict=True):
        theirs.grad = ours.grad.clone()
    optimizer.step()
print(reward.mean().item())
