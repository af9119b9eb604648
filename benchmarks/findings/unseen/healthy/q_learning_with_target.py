"""Q-learning with a replay memory; each time the target network is renewed, the loss jumps up and comes down again."""

import random
from copy import deepcopy

import torch
from torch import nn

LENGTH = 6


def walk(place, action):
    """Return the next place on a ring, and the reward."""
    following = (place + (1, -1)[action]) % LENGTH
    return following, 5.0 * (following == 3)


random.seed(23)
torch.manual_seed(23)
online = nn.Sequential(nn.Linear(LENGTH, 24), nn.Tanh(), nn.Linear(24, 2))
target = deepcopy(online).requires_grad_(False)
optimizer = torch.optim.Adam(online.parameters(), lr=5e-3)
memory, place = [], 0
for _ in range(600):
    action = random.randrange(2)
    following, reward = walk(place, action)
    memory.append((place, action, reward, following))
    place = following
for step in range(400):
    old, action, reward, new = map(torch.tensor, zip(*random.sample(memory, 32), strict=True))
    eye = torch.eye(LENGTH)
    goal = reward + 0.9 * target(eye[new]).amax(1)
    loss = nn.functional.huber_loss(online(eye[old]).gather(1, action[:, None]).squeeze(1), goal)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_(online.parameters(), 1.0)
    optimizer.step()
    if step % 40 == 39:
        target.load_state_dict(online.state_dict())
    if step % 20 == 0:
        print(step, loss.item())
