"""A sequence-to-sequence GRU reverses digits with teacher forcing; the clipping is the last line of the iteration.

Expects: clip-after-step
"""

import torch
from torch import nn


class Reverser(nn.Module):
    """Encoder, decoder, and an output over ten digits."""

    def __init__(self, size=32):
        super().__init__()
        self.embed = nn.Embedding(11, size)
        self.encoder = nn.GRU(size, size, batch_first=True)
        self.decoder = nn.GRU(size, size, batch_first=True)
        self.out = nn.Linear(size, 10)

    def forward(self, source, forced):
        """Return logits for each position of the answer."""
        _, state = self.encoder(self.embed(source))
        return self.out(self.decoder(self.embed(forced), state)[0])


def batches(count, size=32, length=5):
    """Yield digits and their reverse."""
    for _ in range(count):
        source = torch.randint(10, (size, length))
        yield source, source.flip(1)


torch.manual_seed(3)
model = Reverser()
optimizer = torch.optim.Adamax(model.parameters(), lr=0.01)
start = torch.full((32, 1), 10)
for step, (source, target) in enumerate(batches(200)):
    logits = model(source, torch.cat([start, target[:, :-1]], dim=1))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.5)
    if step % 40 == 0:
        print(step, loss.item())
