"""Fine-tuning with a learning rate that halves from layer to layer down, to a sixteenth for the first."""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(36)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
layers = [nn.Sequential(nn.Linear(size, 48), nn.LayerNorm(48), nn.GELU()) for size in (64, 48, 48, 48)]
net = nn.Sequential(*layers, nn.Linear(48, 10))


def fit(optimizer, rows, labels, steps):
    """Train on some rows and return the last loss."""
    for step in range(steps):
        batch = torch.randint(len(rows), (32,))
        loss = nn.functional.cross_entropy(net(rows[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 40 == 0:
            print(step, loss.item())


fit(torch.optim.AdamW(net.parameters(), lr=2e-3), x[:900], y[:900], 160)
groups = [{"params": layer.parameters(), "lr": 1e-3 * 0.5 ** (len(net) - 1 - depth)} for depth, layer in enumerate(net)]
fit(torch.optim.AdamW(groups, weight_decay=0.05), x[900:], 9 - y[900:], 160)
