"""Proximal policy optimisation: each batch of experience is used for four epochs, and clipped to 0.5 as usual."""

import torch
from torch import nn
from torch.distributions import Normal


class Agent(nn.Module):
    """Policy and value."""

    def __init__(self):
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 1))
        self.value = nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 1))
        self.log_scale = nn.Parameter(torch.zeros(1))

    def forward(self, state):
        """Return the distribution of actions, and the value."""
        return Normal(self.policy(state).squeeze(1), self.log_scale.exp()), self.value(state).squeeze(1)


torch.manual_seed(48)
agent = Agent()
optimizer = torch.optim.Adam(agent.parameters(), lr=5e-3, eps=1e-5)
for update in range(25):
    state = torch.randn(128, 3)
    with torch.no_grad():
        old, value = agent(state)
        action = old.sample()
        before = old.log_prob(action)
        reward = 1 - (action - state.sum(1)).square()
        advantage = reward - value
        advantage = (advantage - advantage.mean()) / advantage.std()
    for _ in range(4):
        for rows in torch.randperm(128).split(32):
            new, value = agent(state[rows])
            ratio = (new.log_prob(action[rows]) - before[rows]).exp()
            gain = torch.minimum(ratio * advantage[rows], ratio.clamp(0.8, 1.2) * advantage[rows]).mean()
            loss = -gain + 0.5 * (value - reward[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
    if update % 5 == 0:
        print(update, loss.item(), reward.mean().item())
