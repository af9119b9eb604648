"""An actor-critic on a small control task: one loss, noisy returns, heavy-tailed gradient norms, clipped at 0.5."""

import torch
from torch import nn

torch.manual_seed(0)
actor = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
parameters = [*actor.parameters(), *critic.parameters()]
optimizer = torch.optim.Adam(parameters, lr=5e-3)
for episode in range(150):
    state, rewards, chosen, values = torch.randn(16, 2), [], [], []
    for _ in range(10):
        policy = torch.distributions.Categorical(logits=actor(state))
        action = policy.sample()
        chosen.append(policy.log_prob(action))
        values.append(critic(state).squeeze(1))
        push = torch.stack([2.0 * action - 1, torch.zeros(16)], 1)
        state = 0.9 * state + 0.3 * push + 0.1 * torch.randn(16, 2)
        rewards.append(-state[:, 0].square())
    returns, following = [], torch.zeros(16)
    for reward in reversed(rewards):
        following = reward + 0.9 * following
        returns.insert(0, following)
    advantage = torch.stack(returns) - torch.stack(values)
    loss = -(torch.stack(chosen) * advantage.detach()).mean() + 0.5 * advantage.square().mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 0.5)
    optimizer.step()
    if episode % 30 == 0:
        print(episode, loss.item(), sum(r.mean().item() for r in rewards))
