"""A GRU learns the characters of a few sentences, with the hidden state carried over and detached."""

import torch
from torch import nn

text = "the quick brown fox jumps over the lazy dog. pack my box with five dozen liquor jugs. " * 20
letters = sorted(set(text))
codes = torch.tensor([letters.index(letter) for letter in text])
torch.manual_seed(0)
embed, gru, head = nn.Embedding(len(letters), 16), nn.GRU(16, 48, batch_first=True), nn.Linear(48, len(letters))
parameters = [*embed.parameters(), *gru.parameters(), *head.parameters()]
optimizer = torch.optim.Adam(parameters, lr=5e-3)
rows = codes[: len(codes) // 8 * 8].view(8, -1)
state = None
for step in range(160):
    at = step * 20 % (rows.shape[1] - 21)
    hidden, state = gru(embed(rows[:, at : at + 20]), state)
    state = state.detach()
    loss = nn.functional.cross_entropy(head(hidden).flatten(0, 1), rows[:, at + 1 : at + 21].flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
