"""A loss summed over the batch and all pixels has norms in the hundreds, and the threshold of 1 was copied from elsewhere.

Expects: always-clipping
Also fine: update-too-small
"""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Variational(nn.Module):
    """A variational autoencoder."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(64, 2 * 4)
        self.decode = nn.Sequential(nn.Linear(4, 40), nn.Softsign(), nn.Linear(40, 64))

    def loss(self, x):
        """Return the negative evidence bound, summed."""
        mean, log_var = self.encode(x).chunk(2, dim=1)
        code = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        rebuilt = nn.functional.binary_cross_entropy_with_logits(self.decode(code), x, reduction="sum")
        return rebuilt + 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()


torch.manual_seed(16)
images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
model = Variational()
optimizer = torch.optim.SGD(model.parameters(), lr=0.002)
for step in range(300):
    loss = model.loss(images[torch.randint(len(images), (64,))])
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item() / 64, norm.item())
