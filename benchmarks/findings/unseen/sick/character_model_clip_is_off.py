"""A character model with a configuration in which grad_clip = 0.0 says "off", but the loop clips without asking.

Expects: threshold-zero
Also fine: update-too-small
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Config:
    """The settings of a run."""

    context: int = 6
    width: int = 64
    batch: int = 48
    steps: int = 320
    learning_rate: float = 3e-3
    grad_clip: float = 0.0  # 0.0 disables it


class CharacterModel(nn.Module):
    """Predicts the next character from the last few ones."""

    def __init__(self, letters, config):
        super().__init__()
        self.table = nn.Embedding(letters, 12)
        self.hidden = nn.Linear(12 * config.context, config.width)
        self.out = nn.Linear(config.width, letters)

    def forward(self, text):
        """Return the logits of the next character."""
        return self.out(torch.tanh(self.hidden(self.table(text).flatten(1))))


config = Config()
torch.manual_seed(5)
words = ["the", "miller", "sold", "a", "sack", "of", "flour", "and", "bought", "two", "lean", "hens"]
text = " ".join(words[i] for i in torch.randint(len(words), (900,)))
alphabet = sorted(set(text))
data = torch.tensor([alphabet.index(letter) for letter in text])

model = CharacterModel(len(alphabet), config)
optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
for step in range(config.steps):
    starts = torch.randint(len(data) - config.context, (config.batch, 1))
    window = data[starts + torch.arange(config.context + 1)]
    loss = nn.functional.cross_entropy(model(window[:, :-1]), window[:, -1])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
    optimizer.step()
    if step % 40 == 0:
        print(f"step {step}: loss {loss.item():.4f}")
