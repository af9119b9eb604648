"""Tied weights, and a body that is frozen first and joins the optimizer later."""

import torch
from torch import nn
from truth import Truth, norm

torch.manual_seed(0)
truth = Truth()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.body(self.embedding(tokens)).relu())


def main():
    model = Model()
    model.body.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=0.01)
    for step in range(12):
        if step == 6:
            model.body.requires_grad_(True)
            optimizer.add_param_group({"params": model.body.parameters(), "lr": 0.001})
        tokens = torch.randint(11, (32,))
        loss = nn.functional.cross_entropy(model(tokens), (tokens + 1) % 11)
        optimizer.zero_grad()
        loss.backward()
        before = norm(model.parameters())
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        truth.step(loss=loss.item(), norm=before, clipped_norm=norm(model.parameters()), threshold=0.25, lr=0.01)
        optimizer.step()
        print(repr(loss.item()))
    truth.save()


main()
