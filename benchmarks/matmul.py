"""GFLOP/s of a float32 matrix product: what dense layers can reach at most.

Runs on TensorFlow where it is installed, otherwise on PyTorch, so that each
environment of train_step.py can say what its library makes of this CPU.

    python benchmarks/matmul.py
"""

import statistics
import time

SIZE, REPEATS = 2048, 15


def tensorflow_product():
    import tensorflow as tf

    a = tf.random.normal((SIZE, SIZE))
    product = tf.function(tf.matmul)
    return f"tensorflow {tf.__version__}", lambda: product(a, a).numpy()


def torch_product():
    import torch

    a = torch.randn(SIZE, SIZE)
    return f"torch {torch.__version__}", lambda: (a @ a).numpy()


def main():
    try:
        name, product = tensorflow_product()
    except ImportError:
        name, product = torch_product()
    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        product()
        rates.append(2e-9 * SIZE**3 / (time.perf_counter() - start))
    rates = rates[3:]
    print(f"{name}: median {statistics.median(rates):.0f} GFLOP/s")


if __name__ == "__main__":
    main()
