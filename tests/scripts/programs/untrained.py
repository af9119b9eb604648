"""Uses PyTorch, but never trains."""

import torch

torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
weight = torch.ones(3, requires_grad=True)
(gradient,) = torch.autograd.grad(weight.pow(2).sum(), weight)
with torch.no_grad():
    print(repr(model(torch.ones(1, 3)).item()), gradient.tolist())
