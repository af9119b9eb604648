"""A mixture density net on an inverse problem with logsumexp(); a likelihood below 0 is no fault."""

import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, Normal

torch.manual_seed(26)
net = nn.Sequential(nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 15))
optimizer = torch.optim.Adam(net.parameters(), lr=8e-3, amsgrad=True)
for step in range(350):
    y = torch.rand(128)
    x = y + 0.3 * torch.sin(6.28 * y) + 0.02 * torch.randn(128)
    weight, centre, width = net(x[:, None]).chunk(3, dim=1)
    mixture = MixtureSameFamily(Categorical(logits=weight), Normal(centre, width.clamp(-4, 3).exp()))
    loss = -mixture.log_prob(y).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 100.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
