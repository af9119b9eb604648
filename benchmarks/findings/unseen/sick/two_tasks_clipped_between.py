"""Two tasks on the diabetes data, each with a backward() of its own; the clipping stands after the first of them.

Expects: clip-before-backward
"""

import torch
from sklearn.datasets import load_diabetes
from torch import nn

torch.manual_seed(5)
data = load_diabetes()
x = torch.tensor(data.data, dtype=torch.float32) * 20
progress = torch.tensor(data.target, dtype=torch.float32).sub(150).div(75)
sex = (x[:, 1] > 0).float()
trunk = nn.Sequential(nn.Linear(10, 40), nn.Mish(), nn.Linear(40, 20), nn.Mish())
heads = nn.ModuleDict({"progress": nn.Linear(20, 1), "sex": nn.Linear(20, 1)})
everything = nn.ModuleList([trunk, heads])
optimizer = torch.optim.NAdam(everything.parameters(), lr=2e-3)

for epoch in range(15):
    for rows in torch.randperm(len(x)).split(32):
        optimizer.zero_grad()
        features = trunk(x[rows])
        regression = nn.functional.smooth_l1_loss(heads["progress"](features).squeeze(1), progress[rows])
        regression.backward(retain_graph=True)
        nn.utils.clip_grad_norm_(everything.parameters(), 0.5)
        classification = nn.functional.binary_cross_entropy_with_logits(heads["sex"](features).squeeze(1), sex[rows])
        classification.backward()
        optimizer.step()
    print(f"epoch {epoch}: {regression.item():.3f} {classification.item():.3f}")
