"""The PyTorch sides of train_step.py: a plain loop, compiled, and pythae.

The plain loop trains on one resident tensor, from which it gathers shuffled
batches, with the fused Adam: the fastest that PyTorch does without a change to
the model. It is started by train_step.py, in an environment of its own.
"""

import json
import logging
import os
import sys
import tempfile

import interleave
import numpy as np
import torch
from torch import nn
from torch.nn import functional

LATENT_DIM = 32


def mlp():
    encoder = nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(784, 512), nn.ReLU()),
        *(nn.Linear(512, 256), nn.ReLU()),
        nn.Linear(256, 2 * LATENT_DIM),
    )
    decoder = nn.Sequential(
        *(nn.Linear(LATENT_DIM, 256), nn.ReLU()),
        *(nn.Linear(256, 512), nn.ReLU()),
        nn.Linear(512, 784),
        nn.Unflatten(1, (1, 28, 28)),
    )
    return encoder, decoder


def conv():
    encoder = nn.Sequential(
        *(nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 2 * LATENT_DIM),
    )
    decoder = nn.Sequential(
        *(nn.Linear(LATENT_DIM, 64 * 7 * 7), nn.ReLU()),
        nn.Unflatten(1, (64, 7, 7)),
        *(nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1), nn.ReLU()),
        nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),
    )
    return encoder, decoder


NETWORKS = {"mlp": mlp, "conv": conv}


class VAE(nn.Module):
    """The mean negative ELBO of a batch, as keras_gen.VAE computes it."""

    def __init__(self, case):
        super().__init__()
        self.encoder, self.decoder = NETWORKS[case]()

    def forward(self, x):
        loc, scale = self.encoder(x).chunk(2, dim=1)
        scale = functional.softplus(scale) + 1e-5
        logits = self.decoder(loc + scale * torch.randn_like(loc))
        reconstruction = -functional.binary_cross_entropy_with_logits(
            logits, x, reduction="none"
        ).sum((1, 2, 3))
        kl = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum(1)
        return (kl - reconstruction).mean()


def plain_loop(case, x, batch_size, compiled):
    model = VAE(case)
    loss_of = torch.compile(model) if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def run():
        total = torch.zeros(())
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            loss = loss_of(x[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()
        return len(x)

    return run


def pythae(case, x, batch_size):
    from pythae import models, trainers
    from pythae.data.datasets import BaseDataset
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers.training_callbacks import ProgressBarCallback

    class Encoder(BaseEncoder):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            loc, log_variance = self.network(x).chunk(2, dim=1)
            return ModelOutput(embedding=loc, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, z):
            return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))

    encoder, decoder = NETWORKS[case]()
    trainer = trainers.BaseTrainer(
        models.VAE(
            models.VAEConfig(
                input_dim=(1, 28, 28),
                latent_dim=LATENT_DIM,
                reconstruction_loss="bce",
            ),
            encoder=Encoder(encoder),
            decoder=Decoder(decoder),
        ),
        train_dataset=BaseDataset(x, torch.zeros(len(x))),
        training_config=trainers.BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=batch_size,
            optimizer_cls="Adam",
            learning_rate=1e-3,
            no_cuda=True,
        ),
    )
    trainer.prepare_training()
    handler = trainer.callback_handler  # its bar would cost pythae a little
    handler.callbacks = [
        callback
        for callback in handler.callbacks
        if not isinstance(callback, ProgressBarCallback)
    ]

    def run():
        trainer.train_step(epoch=1)  # an epoch, despite its name
        return len(x)

    return run


def main():
    job = json.loads(sys.argv[1])
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pixels = torch.from_numpy(np.load(job["pixels"]))
    x = pixels.permute(0, 3, 1, 2).contiguous()
    versions = {"torch": torch.__version__}
    if job["side"] == "pythae":
        import importlib.metadata

        versions["pythae"] = importlib.metadata.version("pythae")

    def build(case):
        if job["side"] == "pythae":
            return pythae(case, x, job["batch_size"])
        compiled = job["side"] == "torch.compile"
        return plain_loop(case, x, job["batch_size"], compiled)

    interleave.serve(build, job["cases"], versions)


if __name__ == "__main__":
    main()
