"""RealNVP: affine couplings over several scales."""

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
    InvertibleBatchNormalization,
)
from keras_gen.models.flow import (
    Flow,
    check_flow,
    check_num_scales,
    num_halvings,
)
from keras_gen.networks.coupling import coupling_mlp, coupling_resnet


@saving.register_keras_serializable(package="keras_gen")
class RealNVP(Flow):
    """Real-valued non-volume preserving flow.

    z has independent standard normal distributions. At each scale but the
    last: affine couplings that split the pixels like a checkerboard; a
    squeeze of 2x2 pixels into channels; as many couplings that split the
    channels; half of the channels are then latents, and the others go on to
    the next scale. The last scale has one more checkerboard coupling and no
    others. Couplings take turns in which part they change, and batch
    normalization, itself a part of the flow, stands before the first and after
    each. What is minimized and logged, see `models.flow.Flow`: `loss`, nats
    per image, and `bits_per_dim`.

    Images of one pixel, such as points in the plane, and all images if
    `convolutional` is false, are flat: affine couplings with dense networks
    between the numbers of even and odd index.

    Args:
        image_shape: `(height, width, channels)`.
        num_couplings: Integer: at each scale, as many that split pixels as
            channels; of flat images, all. Defaults to 3, flat to 8.
        num_scales: Integer, how many scales. Defaults to 3, or as many as
            halving even sides allows.
        hidden_dim: Integer, maps (flat: units) of hidden layers, the same at
            all scales.
        num_blocks: Integer, residual blocks (flat: hidden layers) of each
            network.
        convolutional: Boolean. Defaults to whether there is more than one
            pixel.
        batch_normalization: Boolean. Defaults to `convolutional`: statistics
            of few numbers would blur what they normalize.
        max_log_scale: Positive number, bound of the log-scale of a coupling.
        dequantization: `"uniform"` noise, `"variational"` (its distribution
            is learned), a layer of `layers.dequantization`, or `None` for
            continuous data: then `log_prob` is an exact log-density.
        logit: Boolean, whether the logit of images is modelled.
        recompute: Boolean, whether gradients compute the hidden layers of
            couplings once more rather than keep them in memory.
        network: Optional function `(input_shape, output_dim)` that makes the
            network of a coupling, from images to images of the same sides
            (flat: vectors to vectors). Register it with Keras to save the
            model. Defaults to `networks.coupling_resnet` or
            `networks.coupling_mlp`.
        seed: Integer or `None`, seed of noise and samples.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

    Returns:
        `decode(encode(x))`, float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above, or there is nothing to
            split.

    Example:

    >>> RealNVP((28, 28, 1)).sample(16, temperature=0.8)  # (16, 28, 28, 1)
    >>> RealNVP((1, 1, 2), dequantization=None)  # of points in the plane

    Reference:
        - [Density Estimation Using Real NVP](
          https://arxiv.org/abs/1605.08803). Its networks, twice as wide at
          each scale, see a masked image; here one of half size, of the pixels
          of one colour.
    """

    def __init__(
        self,
        image_shape,
        num_couplings=None,
        num_scales=None,
        hidden_dim=64,
        *,
        num_blocks=2,
        convolutional=None,
        batch_normalization=None,
        max_log_scale=2.0,
        dequantization="uniform",
        logit=True,
        recompute=False,
        network=None,
        seed=None,
        **kwargs,
    ):
        image_shape = check_flow(image_shape, network)
        if convolutional is None:
            convolutional = max(image_shape[:2]) > 1
        inputs.check_boolean(convolutional, "convolutional")
        if batch_normalization is None:
            batch_normalization = convolutional
        inputs.check_boolean(batch_normalization, "batch_normalization")
        if num_couplings is None:
            num_couplings = 3 if convolutional else 8
        for value, argument in (
            (num_couplings, "num_couplings"),
            (hidden_dim, "hidden_dim"),
            (num_blocks, "num_blocks"),
        ):
            inputs.check_positive_integer(value, argument)
        make_network = network or functools.partial(
            coupling_resnet if convolutional else coupling_mlp,
            hidden_dim=hidden_dim,
            **{"num_blocks" if convolutional else "num_layers": num_blocks},
        )

        def couplings(shape, split, count):
            parts = []
            for i in range(count):
                flip = i % 2 == 1
                kept, changed = coupling_shapes(shape, split, flip)
                net = make_network(kept, 2 * changed[-1])
                parts.append(
                    AffineCoupling(net, split, flip, max_log_scale, recompute)
                )
                if batch_normalization:
                    parts.append(InvertibleBatchNormalization())
            return parts

        def scales(shape, count):
            height, width, channels = shape
            split = "checkerboard" if max(height, width) > 1 else "channels"
            if count == 1:
                return couplings(shape, split, num_couplings + 1)
            halves = height // 2, width // 2
            return [
                *couplings(shape, split, num_couplings),
                Squeeze2D(),
                *couplings((*halves, 4 * channels), "channels", num_couplings),
                FactorOut(Chain(scales((*halves, 2 * channels), count - 1))),
            ]

        if convolutional:
            num_scales = check_num_scales(
                num_scales, image_shape, 1 + num_halvings(image_shape)
            )
            parts = scales(image_shape, num_scales)
        else:
            if num_scales not in (None, 1):
                raise ValueError(
                    f"`num_scales={num_scales}` has no meaning for a flat "
                    "image. Leave it out, or pass `convolutional=True`."
                )
            flat = (math.prod(image_shape),)
            parts = couplings(flat, "channels", num_couplings)
            parts.insert(0, FlattenEvenFirst())
        if batch_normalization:
            parts.insert(0, InvertibleBatchNormalization())
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
        self.hidden_dim, self.num_blocks = hidden_dim, num_blocks
        self.convolutional = bool(convolutional)
        self.batch_normalization = bool(batch_normalization)
        self.max_log_scale, self.recompute = max_log_scale, recompute

    def get_config(self):
        return {
            **super().get_config(),
            "num_couplings": self.num_couplings,
            "num_scales": self.num_scales,
            "hidden_dim": self.hidden_dim,
            "num_blocks": self.num_blocks,
            "convolutional": self.convolutional,
            "batch_normalization": self.batch_normalization,
            "max_log_scale": self.max_log_scale,
            "recompute": self.recompute,
        }
