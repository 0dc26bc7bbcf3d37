"""One side of gan_step.py, which starts it: `GAN.fit`, or a PyTorch loop."""

import json
import os
import sys

import interleave
import numpy as np

LATENT_DIM = 100
# Trainable numbers of both networks, counted by hand: all sides must have them.
NUM_WEIGHTS = {
    "generator": (
        (100 * 16 * 256 + 2 * 256)
        + (16 * 256 * 128 + 2 * 128)
        + (16 * 128 * 64 + 2 * 64)
        + (16 * 64 * 3 + 3)
    ),
    "discriminator": (
        (16 * 3 * 64 + 64)
        + (16 * 64 * 128 + 2 * 128)
        + (16 * 128 * 256 + 2 * 256)
        + (16 * 256 + 1)
    ),
}


def keras_gen_fit(job, x):
    import keras
    import tensorflow as tf

    import keras_gen

    shape = x.shape[1:]

    def build(case):
        policies = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
        keras.config.set_dtype_policy(policies[case])
        keras.utils.set_random_seed(0)
        gan = keras_gen.GAN(
            shape,
            LATENT_DIM,
            generator=keras_gen.networks.dcgan_generator(LATENT_DIM, shape),
            discriminator=keras_gen.networks.dcgan_discriminator(shape),
            seed=0,
        )
        for name, expected in NUM_WEIGHTS.items():
            weights = getattr(gan, name).trainable_weights
            assert sum(int(np.prod(w.shape)) for w in weights) == expected
        gan.compile()

        def run():
            gan.fit(x, batch_size=job["batch_size"], verbose=0)
            return len(x)

        return run

    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    return build, versions


def torch_loop(job, x):
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    layout = torch.contiguous_format
    if "channels last" in job["side"]:
        layout = torch.channels_last
    images = torch.from_numpy(x).permute(0, 3, 1, 2)
    images = images.contiguous(memory_format=layout)

    def transposed(maps_in, maps, bias=False):
        return nn.ConvTranspose2d(maps_in, maps, 4, 2, 1, bias=bias)

    def convolution(maps_in, maps, bias=False):
        return nn.Conv2d(maps_in, maps, 4, 2, 1, bias=bias)

    def networks():
        generator = nn.Sequential(
            nn.Linear(LATENT_DIM, 16 * 256, bias=False),
            nn.Unflatten(1, (256, 4, 4)),
            *(nn.BatchNorm2d(256), nn.ReLU()),
            *(transposed(256, 128), nn.BatchNorm2d(128), nn.ReLU()),
            *(transposed(128, 64), nn.BatchNorm2d(64), nn.ReLU()),
            *(transposed(64, 3, bias=True), nn.Tanh()),
        )
        discriminator = nn.Sequential(
            *(convolution(3, 64, bias=True), nn.LeakyReLU(0.2)),
            *(convolution(64, 128), nn.BatchNorm2d(128), nn.LeakyReLU(0.2)),
            *(convolution(128, 256), nn.BatchNorm2d(256), nn.LeakyReLU(0.2)),
            *(nn.Flatten(), nn.Linear(16 * 256, 1)),
        )
        for network, expected in zip(
            (generator, discriminator), NUM_WEIGHTS.values(), strict=True
        ):
            network.to(memory_format=layout)
            assert sum(w.numel() for w in network.parameters()) == expected
            for weight in network.parameters():
                if weight.ndim > 1:
                    nn.init.normal_(weight, std=0.02)
        return generator, discriminator

    def build(case):
        generator, discriminator = networks()
        average, _ = networks()
        average.load_state_dict(generator.state_dict())
        pairs = [
            [w for w in network.state_dict().values() if w.is_floating_point()]
            for network in (average, generator)
        ]
        d_optimizer, g_optimizer = (
            torch.optim.Adam(
                network.parameters(), 2e-4, betas=(0.5, 0.999), fused=True
            )
            for network in (discriminator, generator)
        )
        half = case == "bfloat16"

        def d_loss_of(real, z):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                with torch.no_grad():
                    fake = generator(z)
                real_logits = discriminator(real).float()
                fake_logits = discriminator(fake).float()
            return (
                functional.softplus(-real_logits).mean()
                + functional.softplus(fake_logits).mean()
            )

        def g_loss_of(z):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = discriminator(generator(z)).float()
            return functional.softplus(-logits).mean()

        if "torch.compile" in job["side"]:
            d_loss_of = torch.compile(d_loss_of)
            g_loss_of = torch.compile(g_loss_of)

        def step(batch):
            real = 2 * batch - 1
            d_optimizer.zero_grad()
            d_loss = d_loss_of(real, torch.randn(len(real), LATENT_DIM))
            d_loss.backward()
            d_optimizer.step()
            discriminator.requires_grad_(False)
            g_optimizer.zero_grad()
            g_loss = g_loss_of(torch.randn(len(real), LATENT_DIM))
            g_loss.backward()
            g_optimizer.step()
            discriminator.requires_grad_(True)
            with torch.no_grad():
                torch._foreach_lerp_(*pairs, 0.001)
            return g_loss.detach()

        def run():
            total = torch.zeros(())
            for rows in torch.randperm(len(images)).split(job["batch_size"]):
                total += step(images[rows])
            total.item()
            return len(images)

        return run

    return build, {"torch": torch.__version__}


def main():
    job = json.loads(sys.argv[1])
    x = np.load(job["pixels"])
    sides = {"keras_gen fit": keras_gen_fit}
    build, versions = sides.get(job["side"], torch_loop)(job, x)
    interleave.serve(build, job["cases"], versions)


if __name__ == "__main__":
    main()
