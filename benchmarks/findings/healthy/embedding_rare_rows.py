"""Word vectors with sparse gradients: most rows are untouched at most steps."""

import torch
from torch import nn

torch.manual_seed(0)
often = 1 / torch.arange(1, 501)
words, head = nn.Embedding(500, 16, sparse=True), nn.Linear(16, 5)
topic = torch.randint(0, 5, (500,))
sparse = torch.optim.SparseAdam(words.parameters(), lr=0.01)
dense = torch.optim.Adam(head.parameters(), lr=0.01)
for step in range(250):
    drawn = often.multinomial(32, replacement=True)
    loss = nn.functional.cross_entropy(head(words(drawn)), topic[drawn])
    sparse.zero_grad()
    dense.zero_grad()
    loss.backward()
    sparse.step()
    dense.step()
    if step % 50 == 0:
        print(step, loss.item())
