"""Gradient descent by hand, without an optimizer: logistic regression on two blobs."""

import torch
from sklearn.datasets import make_blobs

x, y = make_blobs(300, centers=[[-2, 0], [2, 1]], random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
weight = torch.zeros(2, requires_grad=True)
bias = torch.zeros(1, requires_grad=True)
for step in range(100):
    loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ weight + bias, y)
    loss.backward()
    with torch.no_grad():
        for parameter in (weight, bias):
            parameter.sub_(0.1 * parameter.grad)
            parameter.grad.zero_()
    if step % 20 == 0:
        print(step, loss.item())
