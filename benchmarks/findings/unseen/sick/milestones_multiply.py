"""MultiStepLR with gamma=10 where 0.1 was meant: at each milestone the learning rate grows tenfold.

Expects: learning-rate-spike
Also fine: update-too-large, exploding-gradient, loss-spike, dead-layer, non-finite-gradient
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(13)
digits = load_digits()
data = TensorDataset(torch.tensor(digits.images, dtype=torch.float32).div(16).unsqueeze(1), torch.tensor(digits.target))
net = nn.Sequential(
    nn.Conv2d(1, 8, 3),
    nn.LeakyReLU(0.1),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(72, 40),
    nn.LeakyReLU(0.1),
    nn.Linear(40, 10),
)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
scheduler = MultiStepLR(optimizer, milestones=[4, 6], gamma=10)
for epoch in range(8):
    for image, label in DataLoader(data, batch_size=64, shuffle=True):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(image), label)
        loss.backward()
        optimizer.step()
    scheduler.step()
    print(epoch, loss.item())
