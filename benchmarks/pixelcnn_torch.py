"""The gated PixelCNN of keras_gen in PyTorch, layer by layer, for benchmarks.

Its kernels are cropped to what a pixel may see, so that nothing is multiplied
by zeros.
"""

import torch
from torch import nn
from torch.nn import functional


def gate(a):
    s, t = a.chunk(2, dim=1)
    return torch.tanh(s) * torch.sigmoid(t)


class GatedLayer(nn.Module):
    def __init__(self, inputs, filters, kernel_size, first):
        super().__init__()
        self.past, self.first = kernel_size // 2, first
        taps = self.past + (not first)
        width = 2 * filters
        self.vertical = nn.Conv2d(inputs, width, (taps, kernel_size))
        self.horizontal = nn.Conv2d(inputs, width, (1, taps), bias=False)
        self.link = nn.Conv2d(width, width, 1)
        self.projection = nn.Conv2d(filters, filters, 1)

    def forward(self, v, h):
        past = self.past
        above = functional.pad(v, (past, past, past, 0))
        left = functional.pad(h, (past, 0))
        if self.first:
            above, left = above[:, :, :-1], left[:, :, :, :-1]
        a = self.vertical(above)
        b = self.horizontal(left) + self.link(a)
        new = self.projection(gate(b))
        return gate(a), new if self.first else h + new


class GatedPixelCNN(nn.Module):
    def __init__(self, outputs, filters=64, layers=7):
        super().__init__()
        self.layers = nn.ModuleList(
            [GatedLayer(2, filters, 7, True)]
            + [
                GatedLayer(filters, filters, 3, False)
                for _ in range(layers - 1)
            ]
        )
        self.hidden = nn.Conv2d(filters, filters, 1)
        self.output = nn.Conv2d(filters, outputs, 1)

    def forward(self, x):
        x = 2 * x - 1
        v = h = torch.cat([x, torch.ones_like(x)], dim=1)
        for layer in self.layers:
            v, h = layer(v, h)
        return self.output(functional.relu(self.hidden(functional.relu(h))))
