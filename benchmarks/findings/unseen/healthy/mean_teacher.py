"""A mean teacher: the student learns from few labels and from the teacher, which is its moving average."""

from copy import deepcopy

import torch
from sklearn.datasets import load_digits
from torch import nn


class MeanTeacher:
    """A student and the average of what it was."""

    def __init__(self, model, decay):
        self.student, self.teacher, self.decay = model, deepcopy(model).requires_grad_(False), decay
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)

    def step(self, labelled, label, free, weight):
        """Train the student once, move the teacher, and return the loss."""
        wanted = self.teacher(free + 0.05 * torch.randn_like(free)).softmax(1)
        given = self.student(free + 0.05 * torch.randn_like(free)).softmax(1)
        loss = nn.functional.cross_entropy(self.student(labelled), label) + weight * (given - wanted).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            slow.lerp_(fast.detach(), 1 - self.decay)
        return loss.item()


torch.manual_seed(28)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
pair = MeanTeacher(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10)), decay=0.98)
for step in range(250):
    few, free = torch.randint(120, (32,)), torch.randint(len(x), (64,))
    loss = pair.step(x[few], y[few], x[free], weight=5 * min(1, step / 150))
    if step % 50 == 0:
        print(step, loss, (pair.teacher(x[200:]).argmax(1) == y[200:]).float().mean().item())
