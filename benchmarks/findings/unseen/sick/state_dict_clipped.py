"""An autoencoder whose trainer clips the values of the state dict, which a helper calls the weights.

Expects: clip-without-effect
"""

import torch
from torch import nn

torch.manual_seed(8)


class Autoencoder(nn.Module):
    """Sixteen numbers through three."""

    def __init__(self):
        super().__init__()
        self.narrow = nn.Sequential(nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 3))
        self.widen = nn.Sequential(nn.Linear(3, 12), nn.GELU(), nn.Linear(12, 16))

    def forward(self, x):
        """There and back."""
        return self.widen(self.narrow(x))


def weights_of(model):
    """All of them, it says."""
    return list(model.state_dict().values())


mixing = torch.randn(3, 16)
net = Autoencoder()
trainer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
for step in range(240):
    x = torch.randn(48, 3) @ mixing
    trainer.zero_grad(set_to_none=True)
    loss = (net(x) - x).square().mean()
    loss.backward()
    nn.utils.clip_grad_norm_(weights_of(net), max_norm=1.0)
    trainer.step()
    if step % 40 == 0:
        print(step, loss.item())
