"""Small noisy batches under Adam with the threshold at the median norm, so that half the steps are clipped by a little.

Expects: threshold-in-the-noise
"""

import torch
from torch import nn

torch.manual_seed(0)
embed, head = nn.Embedding(30, 16), nn.Linear(16, 30)
optimizer = torch.optim.Adam([*embed.parameters(), *head.parameters()], lr=3e-4)
for step in range(400):
    tokens = torch.randint(0, 30, (32,))
    following = (tokens + torch.randint(0, 12, (32,))) % 30
    loss = nn.functional.cross_entropy(head(embed(tokens)), following)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([*embed.parameters(), *head.parameters()], 0.75)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
