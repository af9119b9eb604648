"""An actor and a critic, each with an optimizer; the critic's loss goes backward and its step was forgotten.

Expects: backward-without-step
Also fine: zero-grad-missing, unused-parameter
"""

import torch
from torch import nn

torch.manual_seed(0)
actor = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
critic = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer_a = torch.optim.Adam(actor.parameters(), lr=3e-3)
optimizer_c = torch.optim.Adam(critic.parameters(), lr=3e-3)
for step in range(200):
    state = torch.randn(64, 4)
    policy = torch.distributions.Categorical(logits=actor(state))
    action = policy.sample()
    reward = (action == (state[:, 0] > 0)).float() + state[:, 1]
    value = critic(state).squeeze(1)
    loss_c = (reward - value).square().mean()
    optimizer_c.zero_grad()
    loss_c.backward()
    loss_a = -(policy.log_prob(action) * (reward - value.detach())).mean()
    optimizer_a.zero_grad()
    loss_a.backward()
    optimizer_a.step()
    if step % 40 == 0:
        print(step, loss_c.item(), reward.mean().item())
