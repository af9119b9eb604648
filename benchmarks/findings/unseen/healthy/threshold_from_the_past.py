"""The threshold is three times the median of the last fifty norms, computed by hand."""

from collections import deque
from statistics import median

import torch
from torch import nn

torch.manual_seed(47)
truth = torch.randn(8)
net = nn.Sequential(nn.Linear(8, 32), nn.CELU(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
norms = deque(maxlen=50)
for step in range(350):
    x = torch.randn(24, 8)
    noise = 0.2 * torch.distributions.StudentT(2.0).sample((24,))
    loss = nn.functional.mse_loss(net(x).squeeze(1), torch.tanh(x @ truth) + noise)
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.get_total_norm(p.grad for p in net.parameters())
    norms.append(norm.item())
    nn.utils.clip_grads_with_norm_(net.parameters(), 3 * median(norms), norm)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item(), norm.item())
