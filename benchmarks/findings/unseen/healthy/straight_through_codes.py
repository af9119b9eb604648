"""A vector-quantised autoencoder with a straight-through estimator: codes that nothing is near to are never moved."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Quantised(nn.Module):
    """Two codes for an image, from a table of 24."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 16), nn.LayerNorm(16, elementwise_affine=False))
        self.codes = nn.Parameter(0.3 * torch.randn(24, 8))
        self.decode = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 64))

    def forward(self, x):
        """Return the loss: error of rebuilding, and both sides of the distance to the codes."""
        raw = self.encode(x).view(-1, 2, 8)
        chosen = self.codes[torch.cdist(raw, self.codes[None]).argmin(2)]
        passed = raw + (chosen - raw).detach()
        error = nn.functional.mse_loss(self.decode(passed.flatten(1)), x)
        return error + (chosen - raw.detach()).square().mean() + 0.25 * (raw - chosen.detach()).square().mean()


torch.manual_seed(41)
images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
model = Quantised()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for step in range(250):
    loss = model(images[torch.randint(len(images), (48,))])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
