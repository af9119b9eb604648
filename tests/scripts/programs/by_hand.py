"""SGD written by hand: through .data, with the gradients zeroed in place."""

import torch
from truth import Truth, data, norm

torch.manual_seed(0)
truth = Truth()
x, y = data()
w1 = torch.randn(3, 8, requires_grad=True)
w2 = torch.randn(8, 1, requires_grad=True)

for step in range(70):
    loss = ((x @ w1).tanh() @ w2 - y).pow(2).mean()
    loss.backward()
    truth.step(loss=loss.item(), norm=norm([w2, w1]))
    for p in (w1, w2):
        p.data.add_(p.grad.data, alpha=-0.05)
        p.grad.data.zero_()
    print(step, repr(loss.item()))
truth.save()
