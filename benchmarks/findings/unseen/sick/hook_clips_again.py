"""A step hook clips to a norm of 0.5, left over from a library; the loop itself clips to 2 as well.

Expects: clipped-twice
Also fine: always-clipping
"""

import torch
from sklearn.datasets import make_moons
from torch import nn


def clip_in_hook(optimizer, args, kwargs):
    """Clip whatever the optimizer holds."""
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 0.5)


torch.manual_seed(6)
points, label = make_moons(400, noise=0.15, random_state=0)
points, label = torch.tensor(points, dtype=torch.float32), torch.tensor(label, dtype=torch.float32)
model = nn.Sequential(nn.Linear(2, 32), nn.Softplus(), nn.Linear(32, 32), nn.Softplus(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
optimizer.register_step_pre_hook(clip_in_hook)
for step in range(300):
    rows = torch.randint(400, (40,))
    loss = nn.functional.binary_cross_entropy_with_logits(4 * model(points[rows]).squeeze(1), label[rows])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 2.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
