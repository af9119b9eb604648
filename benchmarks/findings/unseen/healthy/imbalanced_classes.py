"""One positive in fifty, weighted by fifty: batches with one have a loss and a gradient many times those without."""

import torch
from sklearn.datasets import make_classification
from torch import nn

torch.manual_seed(31)
x, y = make_classification(3000, 10, n_informative=6, weights=[0.98], flip_y=0, class_sep=2.0, random_state=3)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
model = nn.Sequential(nn.Linear(10, 32), nn.PReLU(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(50.0))
for epoch in range(5):
    for rows in torch.randperm(len(x)).split(32):
        optimizer.zero_grad()
        loss = criterion(model(x[rows]).squeeze(1), y[rows])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    with torch.no_grad():
        guess = model(x).squeeze(1) > 0
    print(epoch, loss.item(), guess[y == 1].float().mean().item(), guess[y == 0].float().mean().item())
