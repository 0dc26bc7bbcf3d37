"""The PyTorch sides of flows.py: normflows, zuko, and couplings written out.

The couplings are the least that can be written: halves that change places,
no mask and no permutation. zuko bounds its log-scales, like keras_gen;
normflows and the couplings do not. It is started by flows.py, in an
environment of its own.
"""

import importlib.metadata
import importlib.util
import json
import math
import os
import sys

import interleave
import torch
from torch import nn

NUM_COUPLINGS = 8
HIDDEN_DIM = {"2": 64, "784": 256}
BATCH_SIZES = {"2": (512, 4096), "784": (128, 512)}


class Couplings(nn.Module):
    """Affine couplings between alternating halves."""

    def __init__(self, dims, hidden_dim):
        super().__init__()
        self.dims = dims
        self.networks = nn.ModuleList(
            nn.Sequential(
                *(nn.Linear(dims // 2, hidden_dim), nn.ReLU()),
                *(nn.Linear(hidden_dim, hidden_dim), nn.ReLU()),
                nn.Linear(hidden_dim, dims),
            )
            for _ in range(NUM_COUPLINGS)
        )

    def log_prob(self, x):
        a, b = x.chunk(2, dim=1)
        log_det = 0.0
        for network in self.networks:
            log_scale, shift = network(a).chunk(2, dim=1)
            a, b = b * log_scale.exp() + shift, a
            log_det = log_det + log_scale.sum(1)
        squares = a.square().sum(1) + b.square().sum(1)
        constant = 0.5 * self.dims * math.log(2 * math.pi)
        return log_det - 0.5 * squares - constant

    def sample(self, count):
        a, b = torch.randn(count, self.dims).chunk(2, dim=1)
        for network in reversed(self.networks):
            log_scale, shift = network(b).chunk(2, dim=1)
            a, b = b, (a - shift) * (-log_scale).exp()
        return torch.cat([a, b], dim=1)


def couplings(dims, hidden_dim, compiled):
    model = Couplings(dims, hidden_dim)
    log_prob = torch.compile(model.log_prob) if compiled else model.log_prob
    return model, log_prob, model.sample


def normflows(dims, hidden_dim):
    import normflows as nf

    flows = []
    for _ in range(NUM_COUPLINGS):
        sizes = [dims // 2, hidden_dim, hidden_dim, dims]
        network = nf.nets.MLP(sizes, init_zeros=True)
        flows += [
            nf.flows.AffineCouplingBlock(network),
            nf.flows.Permute(dims, mode="swap"),
        ]
    base = nf.distributions.base.DiagGaussian(dims, trainable=False)
    model = nf.NormalizingFlow(base, flows)
    return model, model.log_prob, lambda count: model.sample(count)[0]


def zuko(dims, hidden_dim):
    import zuko

    model = zuko.flows.RealNVP(
        dims, transforms=NUM_COUPLINGS, hidden_features=(hidden_dim,) * 2
    )
    return (
        model,
        lambda x: model().log_prob(x),
        lambda count: model().sample((count,)),
    )


def make(side, dims, hidden_dim):
    if side == "normflows":
        return normflows(dims, hidden_dim)
    if side == "zuko":
        return zuko(dims, hidden_dim)
    return couplings(dims, hidden_dim, compiled="compiled" in side)


def build(side, case, steps):
    work, dims = case.split("-")
    batch_size, large = BATCH_SIZES[dims]
    torch.manual_seed(0)
    model, log_prob, sample = make(side, int(dims), HIDDEN_DIM[dims])
    x = torch.rand(max(64 * batch_size, large), int(dims)) - 0.5
    if work == "train":
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
        batches = x[: 64 * batch_size].split(batch_size)

        def run():
            total = torch.zeros(())
            for i in range(steps):
                optimizer.zero_grad()
                loss = -log_prob(batches[i % 64]).mean()
                loss.backward()
                optimizer.step()
                total += loss.detach()
            total.item()
            return steps * batch_size

        return run

    @torch.no_grad()
    def run():
        for _ in range(steps):
            result = log_prob(x[:large]) if work == "density" else sample(large)
        result.sum().item()
        return steps * large

    return run


def main():
    job = json.loads(sys.argv[1])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    versions = {"torch": torch.__version__}
    if importlib.util.find_spec(job["side"]):
        versions[job["side"]] = importlib.metadata.version(job["side"])
    interleave.serve(
        lambda case: build(job["side"], case, job["steps"]),
        job["cases"],
        versions,
    )


if __name__ == "__main__":
    main()
