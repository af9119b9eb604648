"""Its entrance, with relative imports."""

import sys

import torch

sys.path.append("..")

from .model import build

if __name__ == "__main__":
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        loss = model(torch.randn(4, 3)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(repr(loss.item()))
    print(__name__, __package__, sys.argv[1:], vars(sys.modules["__main__"])["__spec__"].name)
