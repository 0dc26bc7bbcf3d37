"""Pixel by pixel with LSTM layers."""

import tensorflow as tf
from keras import saving

from keras_gen import inputs, optimization
from keras_gen.models.raster_scan import RasterScan
from keras_gen.networks.pixel_rnn import PixelLSTM


@saving.register_keras_serializable(package="keras_gen")
class PixelRNN(RasterScan):
    """PixelRNN: exact likelihood by LSTMs that run over the image.

    `p(x) = prod_i p(x_i given the pixels before pixel i)`, row by row and from
    left to right, and red before green before blue. It minimizes `loss`, the
    mean of `-log p(x)` in nats per image, and logs it also as `bits_per_dim`.

    Args:
        image_shape: `(height, width, channels)`.
        hidden_dim: Integer, width of the states of each LSTM.
        num_layers: Integer, layers of LSTMs.
        kind: `"row_lstm"`, one LSTM a layer that goes down all columns at
            once, and sees a triangle above a pixel; or `"diagonal_bilstm"`,
            two a layer that go along the diagonals, and see all earlier
            pixels, in twice as many steps.
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
        network: Optional network, see `PixelCNN`. Defaults to
            `networks.PixelLSTM`, whose images are drawn from caches.
        seed: Integer or `None`, seed of `sample` and `impute`.

    Call arguments:
        x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
        condition: Classes or vectors of a conditional model, one an image.

    Returns:
        Mean of each pixel given those before it in `x`, float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> PixelRNN((28, 28, 1), 16, 7, kind="diagonal_bilstm").sample(16)

    Reference:
        - [Pixel Recurrent Neural Networks](https://arxiv.org/abs/1601.06759)
    """

    def __init__(
        self,
        image_shape,
        hidden_dim=16,
        num_layers=7,
        *,
        kind="row_lstm",
        likelihood="categorical",
        num_components=10,
        num_classes=None,
        condition_dim=None,
        network=None,
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
        self.hidden_dim = inputs.check_positive_integer(
            hidden_dim, "hidden_dim"
        )
        self.num_layers = inputs.check_positive_integer(
            num_layers, "num_layers"
        )
        self.kind = kind
        self.set_network(
            network
            or PixelLSTM(
                self.image_shape,
                self.num_maps,
                self.hidden_dim,
                self.num_layers,
                kind,
                num_groups=self.num_groups,
                condition_dim=self.condition_width,
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
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            "kind": self.kind,
        }
