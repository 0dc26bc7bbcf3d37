"""What the models of binary images, drawn pixel by pixel, share."""

import math

import keras
import numpy as np
import tensorflow as tf

from keras_gen import inputs, pixel_likelihoods
from keras_gen.generative_model import GenerativeModel


class PixelByPixel(GenerativeModel):
    """What `FVBN`, `NADE` and `MADE` share: their verbs.

    `p(x) = mean_m prod_i p_m(x[o_m(i)] given x[o_m(0)], ..., x[o_m(i - 1)])`,
    the mean over one or several orders `o_m` of the pixels. The number of an
    order is an integer or an int32 scalar below.

    A subclass sets `orders`, an int32 array `(num_orders, num_dims)` of the
    pixel at each place in each order, and writes `train_step` and

    - `_logits(x, m)`: of each pixel of flat images `(batch, num_dims)`, given
      those before it in order `m`, `(batch, num_dims)`;
    - `_cached_turns(m, order, num_images)` and `_plain_turns(...)`: the
      `(state, logit, update)` of `draw_in_turn`, with what earlier pixels gave
      kept, and without. There `m` is `(num_images,)` and `order`
      `(num_dims, num_images)`, or they have a last axis of 1 if all images
      have one order.
    """

    log_prob_kind = "exact"

    def __init__(self, image_shape, *, likelihood, seed, **kwargs):
        super().__init__(image_shape, seed=seed, **kwargs)
        if likelihood != "bernoulli":
            raise ValueError(
                f"`likelihood` of {type(self).__name__} must be 'bernoulli', "
                f"got {str(likelihood)[:100]!r}. Leave it out; for grey or "
                "colour images use a model with other likelihoods."
            )
        self.pixels = pixel_likelihoods.get(likelihood)
        self.num_dims = math.prod(self.image_shape)
        self.add_metrics("loss")

    def weight(self, name, shape, initializer="glorot_uniform"):
        """A float32 weight, which the dtype policy leaves as it is."""
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype="float32",
            autocast=False,
        )

    def compile(self, optimizer=None, **kwargs):
        """Configures training.

        Args:
            optimizer: Keras optimizer or its name. Defaults to
                `Adam(1e-3)`.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.
        """
        if optimizer is None:
            optimizer = keras.optimizers.Adam(1e-3)
        optimizer = self.prepare_optimizer(optimizer, self.trainable_weights)
        super().compile(optimizer, **kwargs)

    def test_step(self, data):
        x, _ = self.unpack(data)
        return self.log(loss=-self._log_prob(x))

    def call(self, x, training=False):
        return self.conditionals(x).mean()

    def _flat(self, x):
        return tf.reshape(x, (-1, self.num_dims))

    def _log_prob_in_order(self, x, logits):
        """log p of images in an order, from the logits of flat images."""
        return self.pixels.log_prob(tf.reshape(logits, tf.shape(x)), x)

    # Verbs

    def conditionals(self, x, order=0):
        """p(x_i given the pixels of `x` before pixel i), for all i at once.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            order: Integer, the number of the order.

        Returns:
            A `tfd.Distribution` of batch shape `(batch,)` and event shape
            `image_shape`. With a single order, `conditionals(x).log_prob(x)`
            is `log_prob(x)`. Its samples are not those of the model: to draw
            an image, each pixel has to wait for those before it.

        Raises:
            ValueError: If the images or the order are not as above.
        """
        num_orders = len(self.orders)
        is_integer = isinstance(order, int | np.integer)
        if (
            not is_integer
            or isinstance(order, bool)
            or not 0 <= order < num_orders
        ):
            raise ValueError(
                f"`order` must be the number of an order, an integer from 0 "
                f"to {num_orders - 1}, got {str(order)[:100]!r}. Leave it out "
                "for the first."
            )
        x = self.images_from(x)
        return self.pixels.distribution(
            self.graph(self._logit_images, x, order)
        )

    def _logit_images(self, x, m):
        return tf.reshape(self._logits(self._flat(x), m), tf.shape(x))

    def log_prob(self, x, *, condition=None, num_samples=None, seed=None):
        """Exact log-probability of binary images.

        With several orders, the log of the mean of their probabilities. Where
        a pixel is not 0 or 1, it is the cross-entropy of black and white with
        the probabilities `1 - x` and `x`, and the sum no log-probability.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            condition: `None`, as the model is not conditional.
            num_samples, seed: Accepted, as by models that estimate it, and
                ignored.

        Returns:
            `(batch,)` nats.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_no_condition(condition, self)
        return self.graph(self._log_prob, self.images_from(x))

    def _log_prob(self, x):
        def in_order(m):
            logits = self._logits(self._flat(x), m)
            return self._log_prob_in_order(x, logits)

        num_orders = len(self.orders)
        if num_orders == 1:
            return in_order(0)
        log_probs = tf.map_fn(
            in_order, tf.range(num_orders), fn_output_signature="float32"
        )
        return tf.reduce_logsumexp(log_probs, axis=0) - math.log(num_orders)

    def sample(self, num_samples, *, condition=None, seed=None, cached=True):
        """Images of 0 and 1, drawn pixel by pixel in one compiled loop.

        Of several orders, each image takes one at random. The loop is compiled
        once for each `num_samples`, which takes about a second.

        Args:
            num_samples: Integer, how many.
            condition: `None`, as the model is not conditional.
            seed: Integer for the same images each time, or `None`.
            cached: Boolean, whether what earlier pixels gave is kept, rather
                than computed anew for each pixel. Makes no difference but in
                time.

        Returns:
            `(num_samples, *image_shape)` float32.

        Raises:
            ValueError: If an argument is not as above.
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        inputs.check_no_condition(condition, self)
        sample = self._sample if cached else self._sample_plainly
        return self.graph(sample, num_samples, self.verb_seed(seed))

    def _sample(self, num_samples, seed, cached=True):
        x = tf.zeros((num_samples, self.num_dims))
        drawn = self._draw_pixels(x, tf.zeros_like(x, "bool"), seed, cached)
        return tf.reshape(drawn, (-1, *self.image_shape))

    def _sample_plainly(self, num_samples, seed):
        return self._sample(num_samples, seed, cached=False)

    def impute(self, x, mask, *, num_samples=1, seed=None):
        """Keeps the observed pixels, and draws the others in their turn.

        A pixel is drawn given those before it in the order, observed or drawn,
        and so **not given observed pixels that come later**: with one order,
        the draws follow `p(missing given observed)` if all observed pixels
        come before the missing ones. An order-agnostic `NADE` (`num_orders`
        above 1) puts the observed pixels first in each of its orders, and is
        exact for any mask: its draws follow the mean over the orders of
        `p(missing given observed)`. Of several orders, or sets of masks, each
        draw takes one at random, whatever is observed.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1]. What
                stands in missing pixels makes no difference.
            mask: Booleans that broadcast to the shape of `x`, True where a
                pixel is observed.
            num_samples: Integer, draws per image.
            seed: Integer for the same draws each time, or `None`.

        Returns:
            `(num_samples, batch, *image_shape)` float32 in [0, 1]; observed
            pixels are those of `x`, the others 0 or 1.

        Raises:
            ValueError: If an argument is not as above.
        """
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        x, mask = self.observed_from(x, mask)
        seed = self.verb_seed(seed)
        return self.graph(self._impute, x, mask, num_samples, seed)

    def _impute(self, x, mask, num_samples, seed):
        flat = tf.tile(self._flat(x), (num_samples, 1))
        known = tf.tile(self._flat(mask), (num_samples, 1))
        drawn = self._draw_pixels(flat, known, seed)
        shape = tf.concat([[num_samples], tf.shape(x)], axis=0)
        return tf.reshape(drawn, shape)

    def _draw_pixels(self, x, known, seed, cached=True):
        """Flat images `(batch, num_dims)` whose unknown pixels are drawn."""
        num_images, num_orders = tf.shape(x)[0], len(self.orders)
        seeds = tf.random.split(seed)
        m = tf.zeros((1,), "int32")
        if num_orders > 1:
            m = tf.random.stateless_uniform(
                (num_images,), seeds[0], 0, num_orders, "int32", alg="philox"
            )
        order = self._order(m, known)  # (1 or batch, num_dims)
        uniform = tf.random.stateless_uniform(
            (self.num_dims, num_images), seeds[1], alg="philox"
        )
        turns = self._cached_turns if cached else self._plain_turns
        state, logit, update = turns(m, tf.transpose(order), num_images)
        order = tf.broadcast_to(order, tf.shape(x))
        x, known = (
            tf.transpose(tf.gather(rows, order, batch_dims=1))
            for rows in (x, known)
        )
        # XLA makes the many small steps fast, and would not help full passes.
        draw = tf.function(draw_in_turn, jit_compile=cached, autograph=False)
        drawn = draw(state, logit, update, uniform, x, known)
        places = tf.argsort(order, axis=1)
        return tf.gather(tf.transpose(drawn), places, batch_dims=1)

    def _order(self, m, known):
        return tf.gather(self.orders, m)

    def get_config(self):
        return {**super().get_config(), "likelihood": self.pixels.name}


def draw_in_turn(state, logit, update, uniform, x, known):
    """Draws the pixels of images one after the other.

    Args:
        state: Nested tensors, what is known before the first pixel.
        logit: Function of `(i, state)`: the logits `(batch,)` of pixel i.
        update: Function of `(i, state, value)`: the state after it.
        uniform: Uniform noise in [0, 1), `(num_dims, batch)` float32.
        x: Values of known pixels, `(num_dims, batch)` float32.
        known: Booleans `(num_dims, batch)`, which are not drawn.

    Returns:
        All pixels, `(num_dims, batch)` float32.
    """
    num_dims = uniform.shape[0]

    def body(i, state, drawn):
        white = uniform[i] < tf.sigmoid(logit(i, state))
        value = tf.where(known[i], x[i], tf.cast(white, "float32"))
        return i + 1, update(i, state, value), drawn.write(i, value)

    drawn = tf.TensorArray("float32", num_dims, element_shape=x.shape[1:])
    _, _, drawn = tf.while_loop(
        lambda i, *_: i < num_dims,
        body,
        (0, state, drawn),
        maximum_iterations=num_dims,
    )
    return drawn.stack()
