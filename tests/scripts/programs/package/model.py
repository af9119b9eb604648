"""Its model."""

from torch import nn


def build():
    return nn.Linear(3, 1)
