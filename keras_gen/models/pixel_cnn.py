"""Pixel by pixel with masked convolutions."""

import tensorflow as tf
from keras import saving

from keras_gen import inputs, optimization
from keras_gen.models.raster_scan import RasterScan
from keras_gen.networks.pixel_cnn import GatedPixelCNN


@saving.register_keras_serializable(package="keras_gen")
class PixelCNN(RasterScan):
    """Gated PixelCNN: exact likelihood by masked convolutions.

    `p(x) = prod_i p(x_i given the pixels before pixel i)`, row by row and from
    left to right, and red before green before blue; one pass of the network
    gives all factors. It minimizes `loss`, the mean of `-log p(x)` in nats per
    image, and logs it also as `bits_per_dim`.

    Args:
        image_shape: `(height, width, channels)`.
        num_filters: Integer, features of each of the two stacks.
        num_layers: Integer, layers of each stack.
        likelihood: p of a pixel. `"categorical"`, free probabilities of the
            256 levels of each channel given those before it;
            `"discretized_logistic"`, a mixture of discretized logistics whose
            channels depend on each other linearly, see
            `distributions.DiscretizedLogisticMixture`; or `"bernoulli"`:
            binary images. In training a grey value then counts as the
            probability of white.
        num_components: Integer, of `"discretized_logistic"`.
        num_classes: Integer, if the model is conditional on classes.
        condition_dim: Integer, if it is conditional on vectors of this width.
        condition_network: Optional network, from `(batch, condition_dim)` to a
            map `(batch, height, width, features)`, for conditions that are
            images: flat ones, such as smaller or grey versions. Without it, a
            condition acts on all pixels alike.
        network: Optional network, from images `(batch, *image_shape)` in
            [0, 1] to `(batch, height, width, maps)`, whose outputs at a pixel
            depend on the pixels before it alone, and with several channels on
            those of the pixel itself before the output's own; `maps` of a
            likelihood are those of `pixel_draws`. Conditional ones take
            `[x, condition]`, classes as one-hot vectors. Defaults to
            `networks.GatedPixelCNN`, whose images are drawn from caches.
        kernel_size: Odd integer, of all layers of the default network but the
            first. A pixel sees `first_kernel_size // 2 + (num_layers - 1) *
            (kernel_size // 2)` pixels to the left, upwards and to both sides:
            9 by default, which is enough for texture, not for shape.
        first_kernel_size: Odd integer, of the first layer.
        seed: Integer or `None`, seed of `sample` and `impute`.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
        condition: Classes or vectors of a conditional model, one an image.

    Returns:
        Mean of each pixel given those before it in `x`, float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> PixelCNN((28, 28, 1), likelihood="bernoulli").sample(16)

    Reference:
        - [Pixel Recurrent Neural Networks](https://arxiv.org/abs/1601.06759)
        - [Conditional Image Generation with PixelCNN Decoders](
          https://arxiv.org/abs/1606.05328)
        - [PixelCNN++](https://arxiv.org/abs/1701.05517)
    """

    def __init__(
        self,
        image_shape,
        num_filters=64,
        num_layers=7,
        *,
        likelihood="categorical",
        num_components=10,
        num_classes=None,
        condition_dim=None,
        condition_network=None,
        network=None,
        kernel_size=3,
        first_kernel_size=7,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            image_shape,
            likelihood=likelihood,
            num_components=num_components,
            num_classes=num_classes,
            condition_dim=condition_dim,
            seed=seed,
            **kwargs,
        )
        self.num_filters = inputs.check_positive_integer(
            num_filters, "num_filters"
        )
        self.num_layers = inputs.check_positive_integer(
            num_layers, "num_layers"
        )
        self.kernel_size = kernel_size
        self.first_kernel_size = first_kernel_size
        if network is not None and condition_network is not None:
            raise ValueError(
                "`condition_network` is a part of the default network, and "
                "must be left out if `network` is given. Make it a part of "
                "that one."
            )
        self.set_network(
            network
            or GatedPixelCNN(
                self.image_shape,
                self.num_maps,
                self.num_filters,
                self.num_layers,
                self.kernel_size,
                self.first_kernel_size,
                num_groups=self.num_groups,
                condition_dim=self.condition_width,
                condition_network=condition_network,
            )
        )

    def train_step(self, data):
        x, condition = self.unpack(data)
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            losses = self.losses_of(x, condition, training=True)
            regularization = optimization.regularization(self)
            total = tf.reduce_mean(losses["loss"]) + regularization
            scaled_loss = self.scale_loss(total, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return self.log(**losses)

    def get_config(self):
        return {
            **super().get_config(),
            "num_filters": self.num_filters,
            "num_layers": self.num_layers,
            "kernel_size": self.kernel_size,
            "first_kernel_size": self.first_kernel_size,
        }
