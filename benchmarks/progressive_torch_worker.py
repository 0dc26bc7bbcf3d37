"""The sides of progressive_step.py in PyTorch: the same step, written plainly.

Its Adam is the fused one. `torch.compile` is no side: it cannot differentiate
its backward pass again, which the gradient penalty needs.

The zoo's step is its `optimizeParameters`. It is unchanged, but its betas are
made floats, as today's PyTorch wants them, and the weight of the fade is set
past `updateAlpha`, which fails without a GPU.
"""

import copy
import json
import math
import os
import sys

import interleave
import torch
from torch import nn
from torch.nn import functional

BATCH_SIZE, LATENT_DIM = 16, 128


class Equalized(nn.Module):
    def __init__(self, num_in, num_out, kernel_size=0, gain=2**0.5):
        super().__init__()
        size = (kernel_size, kernel_size) if kernel_size else ()
        self.weight = nn.Parameter(torch.randn(num_out, num_in, *size))
        self.bias = nn.Parameter(torch.zeros(num_out))
        self.scale = gain / math.sqrt(num_in * math.prod(size))

    def forward(self, x):
        weight = self.weight * self.scale
        if weight.dim() == 2:
            return functional.linear(x, weight, self.bias)
        padding = weight.shape[-1] // 2
        return functional.conv2d(x, weight, self.bias, padding=padding)


def activate(x):
    return functional.leaky_relu(x, 0.2)


def normalize(x):
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def enlarge(x):
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def with_deviation(x, group_size=4):
    shape = x.shape
    groups = x.float().reshape(group_size, -1, *shape[1:])
    groups = groups - groups.mean(0)
    std = torch.sqrt(groups.square().mean(0) + 1e-8).mean((1, 2, 3))
    std = std.repeat(group_size).view(-1, 1, 1, 1)
    std = std.expand(-1, 1, *shape[2:]).to(x.dtype)
    return torch.cat([x, std], 1)


def blocks(size, maps):
    count = int(math.log2(size)) - 2
    return nn.ModuleList(
        nn.ModuleList([Equalized(maps, maps, 3), Equalized(maps, maps, 3)])
        for _ in range(count)
    )


class Generator(nn.Module):
    def __init__(self, size, maps):
        super().__init__()
        self.maps = maps
        self.dense = Equalized(LATENT_DIM, 16 * maps, gain=math.sqrt(2) / 4)
        self.second = Equalized(maps, maps, 3)
        self.blocks = blocks(size, maps)
        self.to_image = Equalized(maps, 3, 1, gain=1.0)
        self.to_small_image = Equalized(maps, 3, 1, gain=1.0)

    def forward(self, z, alpha):
        h = self.dense(normalize(z)).view(-1, self.maps, 4, 4)
        h = normalize(activate(h))
        h = normalize(activate(self.second(h)))
        for first, second in self.blocks:
            below = h
            h = normalize(activate(first(enlarge(h))))
            h = normalize(activate(second(h)))
        old = enlarge(self.to_small_image(below))
        return alpha * self.to_image(h) + (1 - alpha) * old


class Discriminator(nn.Module):
    def __init__(self, size, maps):
        super().__init__()
        self.from_image = Equalized(3, maps, 1)
        self.from_small_image = Equalized(3, maps, 1)
        self.blocks = blocks(size, maps)
        self.last = Equalized(maps + 1, maps, 3)
        self.dense = Equalized(16 * maps, maps)
        self.logit = Equalized(maps, 1, gain=1.0)

    def forward(self, x, alpha):
        h = activate(self.from_image(x))
        for i, (first, second) in enumerate(self.blocks):
            h = activate(second(activate(first(h))))
            h = functional.avg_pool2d(h, 2)
            if i == 0:
                small = functional.avg_pool2d(x, 2)
                old = activate(self.from_small_image(small))
                h = alpha * h + (1 - alpha) * old
        h = activate(self.last(with_deviation(h)))
        return self.logit(activate(self.dense(h.flatten(1)))).float()


def trainer(size, maps, channels_last, half):
    generator, judge = Generator(size, maps), Discriminator(size, maps)
    average = copy.deepcopy(generator).requires_grad_(False)
    arguments = {"lr": 1e-3, "betas": (0.0, 0.99), "fused": True}
    g_adam = torch.optim.Adam(generator.parameters(), **arguments)
    d_adam = torch.optim.Adam(judge.parameters(), **arguments)
    real = 2 * torch.rand(BATCH_SIZE, 3, size, size) - 1
    if channels_last:
        real = real.to(memory_format=torch.channels_last)
        for parameter in (*generator.parameters(), *judge.parameters()):
            if parameter.dim() == 4:
                parameter.data = parameter.data.to(
                    memory_format=torch.channels_last
                )
    alpha = 0.5
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=half)

    def step():
        with autocast:
            with torch.no_grad():
                fake = generator(torch.randn(BATCH_SIZE, LATENT_DIM), alpha)
                fake = fake.float()
            real_logits, fake_logits = judge(real, alpha), judge(fake, alpha)
            u = torch.rand(BATCH_SIZE, 1, 1, 1)
            mix = (u * fake + (1 - u) * real).requires_grad_()
            score = judge(mix, alpha).sum()
        (slope,) = torch.autograd.grad(score, mix, create_graph=True)
        norm = torch.sqrt(slope.square().sum((1, 2, 3)) + 1e-12)
        d_loss = (
            fake_logits.mean()
            - real_logits.mean()
            + 10 * (norm - 1).square().mean()
            + 0.001 * real_logits.square().mean()
        )
        d_adam.zero_grad()
        d_loss.backward()
        d_adam.step()
        judge.requires_grad_(False)
        with autocast:
            fake = generator(torch.randn(BATCH_SIZE, LATENT_DIM), alpha)
            g_loss = -judge(fake, alpha).mean()
        g_adam.zero_grad()
        g_loss.backward()
        g_adam.step()
        judge.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(
                list(average.parameters()), list(generator.parameters()), 0.001
            )
        return d_loss.item() + g_loss.item()

    return step


def zoo_trainer(size, maps, folder):
    sys.path.insert(0, folder)
    from models.progressive_gan import ProgressiveGAN

    def adam(network):
        return torch.optim.Adam(network.parameters(), 1e-3, (0.0, 0.99))

    ProgressiveGAN.getOptimizerD = lambda gan: adam(gan.netD)
    ProgressiveGAN.getOptimizerG = lambda gan: adam(gan.netG)
    gan = ProgressiveGAN(
        dimLatentVector=LATENT_DIM,
        depthScale0=maps,
        miniBatchStdDev=True,
        useGPU=False,
        lossMode="WGANGP",
        lambdaGP=10.0,
        epsilonD=0.001,
    )
    for _ in range(int(math.log2(size)) - 2):
        gan.addScale(maps)
    for network in (gan.netG, gan.netD, gan.avgG):
        network.setNewAlpha(0.5)
    real = 2 * torch.rand(BATCH_SIZE, 3, size, size) - 1
    return lambda: gan.optimizeParameters(real)


def main():
    job = json.loads(sys.argv[1])
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def build(case):
        if job["zoo"]:
            step = zoo_trainer(int(case), job["maps"], job["zoo"])
        else:
            step = trainer(
                int(case),
                job["maps"],
                "channels last" in job["side"],
                "bfloat16" in job["side"],
            )

        def run():
            for _ in range(job["steps"]):
                step()
            return BATCH_SIZE * job["steps"]

        return run

    interleave.serve(build, job["cases"], {"torch": torch.__version__})


if __name__ == "__main__":
    main()
