"""A sequence-to-sequence GRU that is teacher-forced at first and lives on its own output at the end; clipped to 1."""

import random

import torch
from torch import nn


class Copier(nn.Module):
    """Read letters, then write each of them plus one."""

    def __init__(self, size=32):
        super().__init__()
        self.embed = nn.Embedding(9, size)
        self.reader = nn.GRU(size, size, batch_first=True)
        self.writer = nn.GRUCell(size, size)
        self.out = nn.Linear(size, 8)

    def forward(self, source, target, forced):
        """Return logits for each position; ``forced`` is the chance that the true answer is fed back."""
        state = self.reader(self.embed(source))[1][0]
        token, logits = torch.full((len(source),), 8), []
        for position in range(target.shape[1]):
            state = self.writer(self.embed(token), state)
            logits.append(self.out(state))
            token = target[:, position] if random.random() < forced else logits[-1].argmax(1)
        return torch.stack(logits, dim=1)


random.seed(22)
torch.manual_seed(22)
model = Copier()
optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
for step in range(240):
    source = torch.randint(8, (32, 4))
    target = (source + 1) % 8
    logits = model(source, target, forced=1 - step / 240)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
