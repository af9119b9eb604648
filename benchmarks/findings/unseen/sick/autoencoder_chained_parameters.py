"""An autoencoder's parameters are chained once, for the optimizer and for the clipping: the chain is used up by then.

Expects: clip-exhausted-generator
"""

from itertools import chain

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(1)
images = torch.tensor(load_digits().images, dtype=torch.float32).div(16).flatten(1)
encoder = nn.Sequential(nn.Linear(64, 32), nn.ELU(), nn.Linear(32, 6))
decoder = nn.Sequential(nn.Linear(6, 32), nn.ELU(), nn.Linear(32, 64), nn.Sigmoid())
weights = chain(encoder.parameters(), decoder.parameters())
optimizer = torch.optim.RMSprop(weights, lr=1e-3)


def train_one(batch):
    """Take a step and return the loss."""
    optimizer.zero_grad()
    loss = nn.functional.binary_cross_entropy(decoder(encoder(batch)), batch)
    loss.backward()
    nn.utils.clip_grad_norm_(weights, 0.1)
    optimizer.step()
    return loss.item()


for epoch in range(6):
    losses = [train_one(batch) for batch in images[torch.randperm(len(images))].split(48)]
    print(epoch, sum(losses) / len(losses))
