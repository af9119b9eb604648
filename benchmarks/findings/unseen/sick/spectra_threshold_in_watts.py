"""A star's temperature from its spectrum; the fluxes are normalised now, the threshold is still that of raw watts.

Expects: clipped-under-eps
Also fine: always-clipping, update-too-small, one-tensor-makes-the-norm
"""

import torch
from torch import nn

MAX_NORM = 1e-11  # the gradients are of this order
wavelength = torch.linspace(0.35, 1.0, 80)  # micrometres


def observe(count):
    """Return noisy spectra, each divided by its mean, and temperatures in units of 1000 K around 6000 K."""
    temperature = 4 + 4 * torch.rand(count, 1)
    flux = wavelength**-5 / torch.expm1(14.388 / (wavelength * temperature))
    flux = flux / flux.mean(1, keepdim=True)
    return flux + 0.03 * torch.randn_like(flux), temperature.squeeze(1) - 6


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x):
        """Return x plus what the block adds."""
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


torch.manual_seed(41)
model = nn.Sequential(nn.Linear(80, 32), Block(32), Block(32), nn.LayerNorm(32), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(300):
    spectra, temperature = observe(64)
    loss = nn.functional.mse_loss(model(spectra).squeeze(1), temperature)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    optimizer.step()
    if step % 50 == 0:
        print(f"{step:4d}  {loss.item():.5f}")
