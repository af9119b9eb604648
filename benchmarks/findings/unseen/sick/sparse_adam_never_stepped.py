"""A recommender with two optimizers: SparseAdam holds the embeddings, Adam the rest, and only Adam is stepped.

Expects: backward-without-step
"""

import torch
from torch import nn
from torch.nn import functional


class Recommender(nn.Module):
    """Users and items, and a small net that rates a pair."""

    def __init__(self, users, items, width=8):
        super().__init__()
        self.users = nn.Embedding(users, width, sparse=True)
        self.items = nn.Embedding(items, width, sparse=True)
        self.rate = nn.Sequential(nn.Linear(2 * width, 24), nn.GELU(), nn.Linear(24, 1))

    def forward(self, user, item):
        """Return the ratings."""
        return self.rate(torch.cat([self.users(user), self.items(item)], dim=1)).squeeze(1)


torch.manual_seed(11)
ratings = torch.randn(60, 3) @ torch.randn(3, 40)
model = Recommender(60, 40)
embeddings = torch.optim.SparseAdam([*model.users.parameters(), *model.items.parameters()], lr=0.01)
dense = torch.optim.Adam(model.rate.parameters(), lr=0.003)
for step in range(250):
    user, item = torch.randint(60, (64,)), torch.randint(40, (64,))
    embeddings.zero_grad()
    dense.zero_grad()
    loss = functional.mse_loss(model(user, item), ratings[user, item])
    loss.backward()
    dense.step()
    if step % 50 == 0:
        print(f"{step}: loss {loss.item():.3f}")
