"""Q-learning on a corridor with a target network; the clipping is given the target network, which has no gradients.

Expects: clip-wrong-parameters
"""

import random
from collections import deque
from copy import deepcopy

import torch
from torch import nn

LENGTH = 8


def move(place, action):
    """Return the next place, the reward and whether the episode ends."""
    place = max(0, place + (1 if action else -1))
    return place, float(place == LENGTH - 1) * 10 - 0.1, place == LENGTH - 1


def seen(places):
    """Return the one-hot observations."""
    return nn.functional.one_hot(torch.tensor(places), LENGTH).float()


random.seed(0)
torch.manual_seed(0)
online = nn.Sequential(nn.Linear(LENGTH, 32), nn.ReLU(), nn.Linear(32, 2))
target = deepcopy(online)
optimizer = torch.optim.RMSprop(online.parameters(), lr=2e-3)
memory, place = deque(maxlen=500), 0
for step in range(450):
    with torch.no_grad():
        best = int(online(seen([place])).argmax())
    action = random.randrange(2) if random.random() < 0.5 else best
    following, reward, done = move(place, action)
    memory.append((place, action, reward, following, done))
    place = 0 if done else following
    if len(memory) < 32:
        continue
    old, acted, got, new, ended = zip(*random.sample(memory, 32), strict=True)
    with torch.no_grad():
        wanted = torch.tensor(got) + 0.9 * target(seen(new)).amax(1) * ~torch.tensor(ended)
    loss = (online(seen(old))[range(32), acted] - wanted).square().mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(target.parameters(), 1.0)
    optimizer.step()
    if step % 25 == 0:
        target.load_state_dict(online.state_dict())
    if step % 75 == 0:
        print(step, loss.item())
