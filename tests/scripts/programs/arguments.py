"""Command line options, a file read from the working directory and one written to it, a message on standard error."""

import argparse
import sys
from pathlib import Path

import torch
from torch import nn
from truth import Truth, norm

parser = argparse.ArgumentParser()
parser.add_argument("input", type=Path)
parser.add_argument("--out", type=Path, default=Path("out.txt"))
parser.add_argument("--clip", type=float, default=1.0)
parser.add_argument("-m", "--module", default="linear")
parser.add_argument("--every", action="store_true")
args = parser.parse_args()

torch.manual_seed(0)
truth = Truth()
x = torch.tensor([float(line) for line in args.input.read_text().split()])[:, None]
model = nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(5):
    optimizer.zero_grad()
    loss = (model(x) - 2 * x).pow(2).mean()
    loss.backward()
    before = norm(model.parameters())
    nn.utils.clip_grad_norm_(list(model.parameters()), args.clip)
    truth.step(loss=loss.item(), norm=before, clipped_norm=norm(model.parameters()), threshold=args.clip)
    optimizer.step()
    print(repr(loss.item()))
args.out.write_text(f"{loss.item()!r}\n")
print("options", vars(args))
print("a word on standard error", file=sys.stderr)
truth.save()
