"""A variational autoencoder whose KL term is faded in, so the loss rises while the model improves."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Variational(nn.Module):
    """Encoder to a mean and a log-variance, and a decoder."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 48), nn.ELU(), nn.Linear(48, 12))
        self.decode = nn.Sequential(nn.Linear(6, 48), nn.ELU(), nn.Linear(48, 64))

    def forward(self, x):
        """Return the error of rebuilding and the divergence, each per image."""
        mean, log_var = self.encode(x).chunk(2, dim=1)
        code = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        error = nn.functional.binary_cross_entropy_with_logits(self.decode(code), x, reduction="none").sum(1).mean()
        return error, 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean()


torch.manual_seed(20)
images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
model = Variational()
optimizer = torch.optim.Adamax(model.parameters(), lr=4e-3)
for step in range(300):
    error, divergence = model(images[torch.randint(len(images), (64,))])
    loss = error + min(1.0, step / 200) * divergence
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item(), error.item(), divergence.item())
