"""A small transformer with learnt positions that its forward() forgets to add: it cannot tell which token came first.

Expects: unused-parameter
"""

import torch
from torch import nn


class Tagger(nn.Module):
    """Say for each token whether it is larger than the one before."""

    def __init__(self, width=24, length=12):
        super().__init__()
        self.token = nn.Embedding(20, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.layer = nn.TransformerEncoderLayer(width, 4, 48, dropout=0.0, batch_first=True, norm_first=True)
        self.out = nn.Linear(width, 2)

    def forward(self, tokens):
        """Return two logits for each token."""
        return self.out(self.layer(self.token(tokens)))


torch.manual_seed(4)
model = Tagger()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
for step in range(150):
    tokens = torch.randint(20, (32, 12))
    larger = (tokens > tokens.roll(1, 1)).long()
    loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), larger.flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    if step % 30 == 0:
        print(step, loss.item())
