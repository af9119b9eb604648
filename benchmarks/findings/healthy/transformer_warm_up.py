"""A small transformer with a linear warm-up and cosine decay, clipped at 1 as everybody does."""

import math

import torch
from torch import nn

torch.manual_seed(0)
embed, place = nn.Embedding(12, 32), nn.Parameter(0.02 * torch.randn(8, 32))
layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
body, head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 12)
parameters = [*embed.parameters(), place, *body.parameters(), *head.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=5e-3, weight_decay=0.1, betas=(0.9, 0.95))
steps, warm_up = 200, 30
scheduler = torch.optim.lr_scheduler.LambdaLR(
    optimizer, lambda i: (i + 1) / warm_up if i < warm_up else 0.5 + 0.5 * math.cos(math.pi * (i - warm_up) / (steps - warm_up))
)
for step in range(steps):
    tokens = torch.randint(0, 12, (16, 8))
    logits = head(body(embed(tokens) + place))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flip(1).flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    scheduler.step()
    if step % 40 == 0:
        print(step, loss.item())
