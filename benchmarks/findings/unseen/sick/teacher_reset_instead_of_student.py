"""A student with an average of itself as teacher: the loop calls teacher.zero_grad(), and the student's gradients pile up.

Expects: zero-grad-missing
Also fine: exploding-gradient, update-too-large
"""

from copy import deepcopy

import torch
from sklearn.datasets import make_classification
from torch import nn

torch.manual_seed(7)
x, y = make_classification(600, 16, n_informative=10, n_classes=3, random_state=1)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
student = nn.Sequential(nn.Linear(16, 48), nn.GELU(), nn.Linear(48, 3))
teacher = deepcopy(student)
optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
for step in range(300):
    rows = torch.randint(600, (30,))
    noisy = x[rows] + 0.2 * torch.randn(30, 16)
    teacher.zero_grad()
    logits = student(noisy)
    with torch.no_grad():
        belief = teacher(x[rows]).softmax(1)
    loss = nn.functional.cross_entropy(logits, y[rows]) + 0.3 * (logits.softmax(1) - belief).square().sum(1).mean()
    loss.backward()
    optimizer.step()
    for average, weight in zip(teacher.parameters(), student.parameters(), strict=True):
        average.data.lerp_(weight.data, 0.05)
    if step % 50 == 0:
        print(step, loss.item())
