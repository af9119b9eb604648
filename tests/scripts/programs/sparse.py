"""Sparse gradients of an embedding, with rows that repeat."""

import torch
from torch import nn
from truth import Truth, norm

torch.manual_seed(0)
truth = Truth()
embedding = nn.EmbeddingBag(50, 4, sparse=True)
head = nn.Linear(4, 1)
sparse = torch.optim.SparseAdam(embedding.parameters(), lr=0.01)
dense = torch.optim.SGD(head.parameters(), lr=0.1)
for _ in range(8):
    words = torch.randint(50, (6, 5))
    loss = (head(embedding(words)) - 1).pow(2).mean()
    loss.backward()
    truth.step(0, loss=loss.item(), norm=norm(embedding.parameters()), nonfinite=0)
    truth.step(1, loss=loss.item(), norm=norm(head.parameters()))
    sparse.step()
    dense.step()
    sparse.zero_grad()
    dense.zero_grad()
    print(repr(loss.item()))
truth.save()
