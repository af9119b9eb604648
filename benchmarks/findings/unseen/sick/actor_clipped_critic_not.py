"""An actor-critic with one optimizer for both, in which only the actor is clipped while the critic's errors are large.

Expects: clip-wrong-parameters
"""

import torch
from torch import nn
from torch.distributions import Normal

torch.manual_seed(4)
actor, critic = (
    nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 1)),
    nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 1)),
)
optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=3e-3)
for step in range(300):
    state = torch.randn(40, 3)
    policy = Normal(actor(state).squeeze(1), 0.3)
    action = policy.sample()
    reward = 8 - 5 * (action - state.sum(1).tanh()).square()
    value = critic(state).squeeze(1)
    advantage = (reward - value).detach()
    loss = -(policy.log_prob(action) * advantage).mean() + (reward - value).square().mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(actor.parameters(), 1.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, reward.mean().item())
