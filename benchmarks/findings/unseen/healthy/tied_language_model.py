"""A language model on English text whose output layer is its embedding: one tensor, two uses."""

from pydoc_data.topics import topics

import torch
from torch import nn

text = "".join(topics[name] for name in sorted(topics))[:60000]
letters = sorted(set(text))
codes = torch.tensor([letters.index(letter) for letter in text])


class Tied(nn.Module):
    """A GRU between one table of letters and the same table."""

    def __init__(self, size=32):
        super().__init__()
        self.table = nn.Embedding(len(letters), size)
        self.gru = nn.GRU(size, size)
        self.out = nn.Linear(size, len(letters), bias=False)
        self.out.weight = self.table.weight

    def forward(self, codes):
        """Return logits for the next letter."""
        return self.out(self.gru(self.table(codes))[0])


torch.manual_seed(35)
model = Tied()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for step in range(150):
    starts = torch.randint(len(codes) - 25, (16,))
    chunk = torch.stack([codes[start : start + 25] for start in starts.tolist()], dim=1)
    loss = nn.functional.cross_entropy(model(chunk[:-1]).flatten(0, 1), chunk[1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 30 == 0:
        print(step, loss.item())
