"""GFLOP/s of a float32 matrix product, and of a convolution.

The product is what dense layers can reach at most; the convolution, of 3x3
pixels and 128 maps, is one that the library does well, and may be faster than
the product. Neither bounds what another shape can reach.

Runs on TensorFlow where it is installed, otherwise on PyTorch, so that each
environment of train_step.py can say what its library makes of this CPU.

    python benchmarks/matmul.py
"""

import statistics
import time

SIZE, REPEATS = 2048, 15
BATCH, PIXELS, MAPS = 16, 32, 128
FLOPS = {
    "product": 2 * SIZE**3,
    "convolution": 2 * BATCH * PIXELS**2 * 9 * MAPS**2,
}


def tensorflow_work():
    import tensorflow as tf

    a = tf.random.normal((SIZE, SIZE))
    x = tf.random.normal((BATCH, PIXELS, PIXELS, MAPS))
    kernel = tf.random.normal((3, 3, MAPS, MAPS))
    product, convolution = tf.function(tf.matmul), tf.function(tf.nn.conv2d)
    return f"tensorflow {tf.__version__}", {
        "product": lambda: product(a, a).numpy(),
        "convolution": lambda: convolution(x, kernel, 1, "SAME").numpy(),
    }


def torch_work():
    import torch

    a = torch.randn(SIZE, SIZE)
    x = torch.randn(BATCH, MAPS, PIXELS, PIXELS)
    x = x.to(memory_format=torch.channels_last)
    kernel = torch.randn(MAPS, MAPS, 3, 3)
    return f"torch {torch.__version__}", {
        "product": lambda: (a @ a).numpy(),
        "convolution": lambda: torch.conv2d(x, kernel, padding=1).numpy(),
    }


def main():
    try:
        name, work = tensorflow_work()
    except ImportError:
        name, work = torch_work()
    for kind, run in work.items():
        rates = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            run()
            rates.append(1e-9 * FLOPS[kind] / (time.perf_counter() - start))
        rate = statistics.median(rates[3:])
        print(f"{name}: {kind}, median {rate:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
