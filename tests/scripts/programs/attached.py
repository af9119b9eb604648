"""A script that uses gradclip itself: attached to one optimizer, called for the other; some gradients are NaN."""

import warnings

import torch
from torch import nn
from truth import Truth, data, norm

import gradclip

warnings.simplefilter("ignore")
torch.manual_seed(0)
truth = Truth()
first, second = nn.Linear(3, 1), nn.Linear(3, 1)
one, two = torch.optim.SGD(first.parameters(), lr=0.1), torch.optim.SGD(second.parameters(), lr=0.1)
handle = gradclip.attach(one, "global_norm:0.5", parameters=first)
for step in range(6):
    for net, optimizer, number in ((first, one, 0), (second, two, 1)):
        x, y = data()
        loss = (net(x) - y).pow(2).mean() * (float("nan") if (step, number) == (3, 0) else 1.0)
        optimizer.zero_grad()
        loss.backward()
        before = norm(net.parameters())
        if number:
            result = gradclip.clip_(net, gradclip.value(0.1))
            after = norm(net.parameters())
        optimizer.step()
        if not number:
            result = handle.result
            after = float(result.clipped_norm)
        truth.step(number, loss=loss.item(), norm=before, clipped_norm=after, skipped=result.skipped, clipped=True)
        print(repr(loss.item()), repr(float(result.norm)))
truth.save()
