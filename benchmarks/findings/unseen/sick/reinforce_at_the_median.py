"""REINFORCE without a baseline: the norms scatter widely from step to step, and the threshold is about their median.

Expects: threshold-in-the-noise
"""

import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(18)
policy = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
optimizer = torch.optim.SGD(policy.parameters(), lr=0.01)
for episode in range(400):
    states = torch.randn(3, 4)
    choice = Categorical(logits=policy(states))
    action = choice.sample()
    reward = 2 * (action == states[:, :3].argmax(1)).float() + 2 * torch.randn(3)
    loss = -(choice.log_prob(action) * reward).mean()
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(policy.parameters(), 2.2)
    optimizer.step()
    if episode % 20 == 0:
        print(episode, reward.mean().item(), norm.item())
