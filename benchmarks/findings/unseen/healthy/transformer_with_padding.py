"""A transformer encoder on sequences of many lengths: the padding row of its embedding is 0 and stays so."""

import torch
from torch import nn


class Counter(nn.Module):
    """Is the token 1 more frequent than the token 2?"""

    def __init__(self, width=24):
        super().__init__()
        self.embed = nn.Embedding(8, width, padding_idx=0)
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 2, 48, dropout=0.0, batch_first=True), num_layers=2, enable_nested_tensor=False
        )
        self.out = nn.Linear(width, 1)

    def forward(self, tokens):
        """Return the logit of each sequence."""
        empty = tokens == 0
        hidden = self.layers(self.embed(tokens), src_key_padding_mask=empty).masked_fill(empty[:, :, None], 0)
        return self.out(hidden.sum(1) / (~empty).sum(1, keepdim=True)).squeeze(1)


torch.manual_seed(40)
model = Counter()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.05, total_iters=20)
for step in range(150):
    tokens = torch.randint(1, 8, (32, 14))
    tokens[torch.arange(14) >= torch.randint(3, 15, (32, 1))] = 0
    label = ((tokens == 1).sum(1) > (tokens == 2).sum(1)).float()
    loss = nn.functional.binary_cross_entropy_with_logits(model(tokens), label)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    if step % 30 == 0:
        print(step, loss.item())
