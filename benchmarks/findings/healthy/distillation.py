"""A small student learns from a larger teacher that was trained before, with two optimizers used one after the other."""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
teacher = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
student = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
optimizer = torch.optim.AdamW(teacher.parameters(), lr=5e-3)
for _step in range(150):
    batch = torch.randint(0, len(x), (32,))
    loss = nn.functional.cross_entropy(teacher(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("teacher", loss.item())
optimizer = torch.optim.AdamW(student.parameters(), lr=5e-3)
for _step in range(200):
    batch = torch.randint(0, len(x), (32,))
    with torch.no_grad():
        target = teacher(x[batch]).softmax(1)
    loss = nn.functional.cross_entropy(student(x[batch]), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("student", loss.item())
