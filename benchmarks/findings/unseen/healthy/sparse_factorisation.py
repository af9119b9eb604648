"""Matrix factorisation with sparse embeddings under SparseAdam: most rows get nothing in most steps."""

import torch
from torch import nn


class Factors(nn.Module):
    """Two tables and their products."""

    def __init__(self, rows, columns, rank):
        super().__init__()
        self.rows = nn.Embedding(rows, rank, sparse=True)
        self.columns = nn.Embedding(columns, rank, sparse=True)
        for table in (self.rows, self.columns):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, row, column):
        """Return the entries asked for."""
        return (self.rows(row) * self.columns(column)).sum(1)


torch.manual_seed(25)
truth = torch.randn(80, 4) @ torch.randn(4, 50) / 2
model = Factors(80, 50, 6)
optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.03)
for step in range(400):
    row, column = torch.randint(80, (48,)), torch.randint(50, (48,))
    loss = nn.functional.mse_loss(model(row, column), truth[row, column])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
