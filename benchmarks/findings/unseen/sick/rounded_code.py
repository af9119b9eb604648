"""An autoencoder with a code of whole numbers: round() has slope 0, and the straight-through trick was left out.

Expects: dead-layer
"""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Coder(nn.Module):
    """Eight whole numbers for an image."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 48), nn.SiLU(), nn.Linear(48, 8))
        self.decode = nn.Sequential(nn.Linear(8, 48), nn.SiLU(), nn.Linear(48, 64))

    def forward(self, image):
        """Return the image as the code has it."""
        return self.decode(torch.round(4 * self.encode(image)))


torch.manual_seed(12)
images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
model = Coder()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for step in range(200):
    batch = images[torch.randint(len(images), (40,))]
    loss = nn.functional.mse_loss(model(batch), batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
