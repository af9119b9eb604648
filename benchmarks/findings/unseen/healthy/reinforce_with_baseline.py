"""REINFORCE with a moving baseline and an entropy bonus: the "loss" is around 0 all the time, the reward rises."""

import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(24)
policy = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 4))
optimizer = torch.optim.RMSprop(policy.parameters(), lr=2e-3)
baseline = 0.0
for episode in range(400):
    states = torch.randn(16, 5)
    choice = Categorical(logits=policy(states))
    action = choice.sample()
    reward = (action == states[:, :4].argmax(1)).float()
    baseline += 0.05 * (reward.mean().item() - baseline)
    loss = -(choice.log_prob(action) * (reward - baseline)).mean() - 0.01 * choice.entropy().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if episode % 50 == 0:
        print(episode, loss.item(), baseline)
