"""One side of metrics.py, which starts it: a metric on data from a file.

With `"once"` in its job it computes the metric one time, and prints the values
and how much memory that took.
"""

import json
import os
import resource
import sys

import interleave
import numpy as np

BATCH_SIZE = 128


def keras_gen_swd(job, data):
    from keras_gen import metrics

    def run():
        metric = metrics.SlicedWassersteinDistance(max_images=len(data["real"]))
        for i in range(0, len(data["real"]), BATCH_SIZE):
            batch = slice(i, i + BATCH_SIZE)
            metric.update_state(data["real"][batch], data["generated"][batch])
        return list(metric.result().values())[:-1]

    return run


def zoo_swd(job, data):
    sys.path.insert(0, job["zoo"])
    import torch
    from models.metrics import laplacian_swd

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    real, generated = (
        torch.from_numpy(data[name]).permute(0, 3, 1, 2).float() / 127.5 - 1
        for name in ("real", "generated")
    )

    def run():
        metric = laplacian_swd.LaplacianSWDMetric(7, 128, 3)
        for i in range(0, len(real), BATCH_SIZE):
            batch = slice(i, i + BATCH_SIZE)
            # It overwrites what it is given.
            metric.updateWithMiniBatch(
                real[batch].clone(), generated[batch].clone()
            )
        return [1000 * distance for distance in metric.getScore()]

    return run


def keras_gen_frechet(job, data):
    from keras_gen.metrics.frechet import frechet_distance

    return lambda: [
        frechet_distance(data["m1"], data["c1"], data["m2"], data["c2"])
    ]


def scipy_frechet(job, data):
    import scipy.linalg

    def run():
        difference = data["m1"] - data["m2"]
        root = scipy.linalg.sqrtm(data["c1"] @ data["c2"]).real
        traces = np.trace(data["c1"]) + np.trace(data["c2"])
        return [difference @ difference + traces - 2 * np.trace(root)]

    return run


SIDES = {
    ("keras_gen", "swd"): keras_gen_swd,
    ("zoo", "swd"): zoo_swd,
    ("keras_gen", "frechet"): keras_gen_frechet,
    ("scipy sqrtm", "frechet"): scipy_frechet,
}


def versions():
    names = ("numpy", "scipy", "tensorflow", "keras", "torch")
    return {
        name: sys.modules[name].__version__
        for name in names
        if name in sys.modules
    }


def main():
    job = json.loads(sys.argv[1])
    data = dict(np.load(job["data"]))
    run = SIDES[job["side"], job["metric"]](job, data)
    if job.get("once"):
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # where whatever libraries print goes
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        values = run()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        megabytes = (after - before) / 1024
        print(
            json.dumps({"values": values, "megabytes": megabytes}),
            file=answers,
        )
        return
    num_images = 2 * len(data["real"]) if job["metric"] == "swd" else 1

    def build(metric):
        def repeat():
            run()
            return num_images

        return repeat

    interleave.serve(build, [job["metric"]], versions())


if __name__ == "__main__":
    main()
