"""Four experts of which each batch uses one: three quarters of the experts get no gradient at any step."""

import torch
from torch import nn

torch.manual_seed(0)
experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)) for _ in range(4))
truths = torch.randn(4, 6)
optimizer = torch.optim.AdamW(experts.parameters(), lr=0.01)
for step in range(400):
    chosen = int(torch.randint(0, 4, ()))
    x = torch.randn(32, 6)
    loss = nn.functional.mse_loss(experts[chosen](x).squeeze(1), x @ truths[chosen])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(experts.parameters(), 5.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
