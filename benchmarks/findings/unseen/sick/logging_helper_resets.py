"""A helper that logs gradient norms tidies up with model.zero_grad() before it returns, so the step has nothing to use.

Expects: zero-grad-before-step
"""

import torch
from torch import nn


def log_norms(model, history):
    """Keep the norm of each parameter's gradient."""
    history.append({name: p.grad.norm().item() for name, p in model.named_parameters()})
    model.zero_grad()


torch.manual_seed(9)
series = torch.sin(torch.arange(600) * 0.17) + 0.1 * torch.randn(600)
windows = series.unfold(0, 25, 1)
model = nn.Sequential(nn.Conv1d(1, 6, 5), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 20, 1))
optimizer = torch.optim.Adamax(model.parameters())
history = []
for epoch in range(6):
    for batch in windows[torch.randperm(len(windows))].split(24):
        loss = nn.functional.mse_loss(model(batch[:, None, :-1]).squeeze(1), batch[:, -1])
        loss.backward()
        log_norms(model, history)
        optimizer.step()
    print(epoch, loss.item(), sum(history[-1].values()))
