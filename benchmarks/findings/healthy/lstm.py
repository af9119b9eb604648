"""An LSTM with forget bias 1 forecasts a noisy sine, without clipping."""

import torch
from torch import nn

torch.manual_seed(0)
lstm, head = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 1)
nn.init.constant_(lstm.bias_hh_l0[32:64], 1.0)
optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()], lr=5e-3)
for step in range(150):
    start = 6.28 * torch.rand(16, 1)
    wave = (start + 0.3 * torch.arange(31)).sin() + 0.05 * torch.randn(16, 31)
    hidden, _ = lstm(wave[:, :-1].unsqueeze(2))
    loss = nn.functional.mse_loss(head(hidden).squeeze(2), wave[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 30 == 0:
        print(step, loss.item())
