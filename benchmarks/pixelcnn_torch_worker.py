"""The PyTorch sides of pixelcnn_step.py: a plain loop, also compiled.

It is started by pixelcnn_step.py, in an environment of its own.
"""

import json
import os
import sys

import interleave
import numpy as np
import torch
from pixelcnn_torch import GatedPixelCNN
from torch import nn
from torch.nn import functional


class Loss(nn.Module):
    """The mean of -log p(x), as keras_gen.PixelCNN computes it."""

    def __init__(self, likelihood):
        super().__init__()
        self.likelihood = likelihood
        self.network = GatedPixelCNN(256 if likelihood == "categorical" else 1)

    def forward(self, levels):
        x = levels / 255
        h = self.network(x)
        if self.likelihood == "categorical":
            cost = functional.cross_entropy(
                h, levels[:, 0].long(), reduction="none"
            )
            return cost.sum((1, 2)).mean()
        cost = functional.binary_cross_entropy_with_logits(
            h, x, reduction="none"
        )
        return cost.sum((1, 2, 3)).mean()


def trainer(job, likelihood):
    pixels = torch.from_numpy(np.load(job["pixels"])).permute(0, 3, 1, 2)
    levels = pixels.float()
    if likelihood == "bernoulli":
        levels = 255.0 * (levels > 127)
    levels = levels.contiguous()
    model = Loss(likelihood)
    if "channels last" in job["side"]:
        model = model.to(memory_format=torch.channels_last)
        levels = levels.contiguous(memory_format=torch.channels_last)
    loss_of = torch.compile(model) if "compile" in job["side"] else model
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def run():
        total = torch.zeros(())
        for batch in torch.randperm(len(levels)).split(job["batch_size"]):
            optimizer.zero_grad()
            loss = loss_of(levels[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()
        return len(levels)

    return run


def main():
    job = json.loads(sys.argv[1])
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    interleave.serve(
        lambda case: trainer(job, case),
        job["cases"],
        {"torch": torch.__version__},
    )


if __name__ == "__main__":
    main()
