"""The PyTorch sides of sampling.py: a full pass of the network for each pixel.

It is started by sampling.py, in an environment of its own.
"""

import json
import os
import sys

import interleave
import torch
from pixelcnn_torch import GatedPixelCNN

TIMED_PIXELS = 14  # of 784, as in sampling_keras_worker.py


def sampler(side, batch_size):
    network = GatedPixelCNN(outputs=1)
    if "compile" in side:
        network = torch.compile(network)
    cropped = "rows" in side

    @torch.inference_mode()
    def run():
        x = torch.zeros(batch_size, 1, 28, 28)
        uniform = torch.rand(batch_size, TIMED_PIXELS)
        for step in range(TIMED_PIXELS):
            # Of rows down to the pixel, a mean image has every second one.
            i, j = (2 * step + 1, 7) if cropped else (step, 7)
            logits = network(x[:, :, : i + 1] if cropped else x)[:, 0, i, j]
            white = uniform[:, step] < torch.sigmoid(logits)
            x[:, 0, i, j] = white.float()
        return batch_size * TIMED_PIXELS / 784

    return run


def main():
    job = json.loads(sys.argv[1])
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    interleave.serve(
        lambda case: sampler(job["side"], int(case.split()[1])),
        job["cases"],
        {"torch": torch.__version__},
    )


if __name__ == "__main__":
    main()
