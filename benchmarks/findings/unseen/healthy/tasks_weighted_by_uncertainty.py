"""Two tasks whose weights are learnt as log-variances; each has its own backward(), then one clipping and one step."""

import torch
from sklearn.datasets import load_diabetes
from torch import nn

torch.manual_seed(27)
data = load_diabetes()
x = torch.tensor(data.data, dtype=torch.float32) * 20
progress = torch.tensor(data.target, dtype=torch.float32).sub(150).div(75)
high = (progress > 0.5).float()
trunk, heads = nn.Sequential(nn.Linear(10, 32), nn.GELU()), nn.Linear(32, 2)
log_variance = nn.Parameter(torch.zeros(2))
parameters = [*trunk.parameters(), *heads.parameters(), log_variance]
optimizer = torch.optim.AdamW(parameters, lr=3e-3)
for epoch in range(20):
    for rows in torch.randperm(len(x)).split(40):
        optimizer.zero_grad()
        first, second = heads(trunk(x[rows])).unbind(1)
        losses = [
            nn.functional.mse_loss(first, progress[rows]),
            nn.functional.binary_cross_entropy_with_logits(second, high[rows]),
        ]
        for task, loss in enumerate(losses):
            ((-log_variance[task]).exp() * loss + log_variance[task] / 2).backward(retain_graph=task == 0)
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
    if epoch % 4 == 0:
        print(epoch, [round(loss.item(), 3) for loss in losses], log_variance.tolist())
