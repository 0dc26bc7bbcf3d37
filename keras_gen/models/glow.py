"""Glow: affine couplings between learned mixtures of the channels."""

import functools
import math

from keras import saving

from keras_gen import inputs
from keras_gen.layers.coupling import (
    AffineCoupling,
    FlattenEvenFirst,
    Squeeze2D,
    coupling_shapes,
)
from keras_gen.layers.invertible import Chain, FactorOut
from keras_gen.layers.invertible_normalization import (
    ActivationNormalization,
    InvertibleConv1x1,
)
from keras_gen.models.flow import (
    Flow,
    check_flow,
    check_num_scales,
    num_halvings,
)
from keras_gen.networks.coupling import coupling_convnet, coupling_mlp


@saving.register_keras_serializable(package="keras_gen")
class Glow(Flow):
    """Generative flow with invertible 1x1 convolutions.

    At each scale 2x2 pixels are squeezed into channels; then come steps of
    activation normalization, an invertible 1x1 convolution, and an affine
    coupling that splits the channels. At each scale but the last, half of the
    channels are then latents: Gaussian given the other half, whose mean and
    standard deviation are found by one more coupling, which makes them
    standard normal like all of z. What is minimized and logged, see
    `models.flow.Flow`: `loss`, nats per image, and `bits_per_dim`.

    Images of one pixel, such as points in the plane, have no scales: steps
    with dense networks mix and split their channels.

    Args:
        image_shape: `(height, width, channels)`. Sides are even, or there is
            one pixel.
        num_couplings: Integer, steps of each scale; 32 is published.
        num_scales: Integer, how many scales. Defaults to 3, or as many as
            halving even sides allows.
        hidden_dim: Integer, maps of the hidden layers; 512 is published.
        max_log_scale: Positive number, bound of the log-scale of a coupling.
        dequantization: `"uniform"` noise, `"variational"` (its distribution
            is learned), a layer of `layers.dequantization`, or `None` for
            continuous data: then `log_prob` is an exact log-density.
        logit: Boolean, whether the logit of images is modelled.
        recompute: Boolean, whether gradients compute the hidden layers of
            couplings once more rather than keep them in memory.
        network: Optional function `(input_shape, output_dim)` that makes the
            network of a coupling, from images to images of the same sides
            (of one pixel: vectors to vectors). Register it with Keras to save
            the model. Defaults to `networks.coupling_convnet` or
            `networks.coupling_mlp`.
        seed: Integer or `None`, seed of noise and samples.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        `decode(encode(x))`, float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> Glow((32, 32, 3)).sample(16, temperature=0.7)  # (16, 32, 32, 3)

    Reference:
        - [Glow](https://arxiv.org/abs/1807.03039), where the scale of a
          coupling is `sigmoid(s + 2)`.
    """

    def __init__(
        self,
        image_shape,
        num_couplings=16,
        num_scales=None,
        hidden_dim=128,
        *,
        max_log_scale=2.0,
        dequantization="uniform",
        logit=False,
        recompute=False,
        network=None,
        seed=None,
        **kwargs,
    ):
        image_shape = check_flow(image_shape, network)
        for value, argument in (
            (num_couplings, "num_couplings"),
            (hidden_dim, "hidden_dim"),
        ):
            inputs.check_positive_integer(value, argument)
        flat = max(image_shape[:2]) == 1
        make_network = network or functools.partial(
            coupling_mlp if flat else coupling_convnet, hidden_dim=hidden_dim
        )

        def coupling(shape, flip=False):
            kept, changed = coupling_shapes(shape, flip=flip)
            return AffineCoupling(
                make_network(kept, 2 * changed[-1]),
                flip=flip,
                max_log_scale=max_log_scale,
                recompute=recompute,
            )

        def steps(shape):
            parts = []
            for _ in range(num_couplings):
                parts += [
                    ActivationNormalization(),
                    InvertibleConv1x1(),
                    coupling(shape),
                ]
            return parts

        def scales(shape, count):
            height, width, channels = shape
            shape = height // 2, width // 2, 4 * channels
            parts = [Squeeze2D(), *steps(shape)]
            if count > 1:
                rest = scales((*shape[:2], 2 * channels), count - 1)
                # Its network sees what goes on, and changes what does not.
                parts += [coupling(shape), FactorOut(Chain(rest))]
            return parts

        most = 1 if flat else num_halvings(image_shape)
        if not most:
            raise ValueError(
                "`image_shape` of Glow must have even sides, got "
                f"{image_shape}. Pad the images, or use `RealNVP`."
            )
        num_scales = check_num_scales(num_scales, image_shape, most)
        if flat:
            parts = [FlattenEvenFirst(), *steps((math.prod(image_shape),))]
        else:
            parts = scales(image_shape, num_scales)
        super().__init__(
            image_shape,
            Chain(parts),
            dequantization=dequantization,
            logit=logit,
            network=network,
            seed=seed,
            **kwargs,
        )
        self.num_couplings, self.num_scales = num_couplings, num_scales
        self.hidden_dim, self.max_log_scale = hidden_dim, max_log_scale
        self.recompute = recompute

    def get_config(self):
        return {
            **super().get_config(),
            "num_couplings": self.num_couplings,
            "num_scales": self.num_scales,
            "hidden_dim": self.hidden_dim,
            "max_log_scale": self.max_log_scale,
            "recompute": self.recompute,
        }
