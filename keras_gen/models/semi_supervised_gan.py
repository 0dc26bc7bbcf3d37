"""Semi-supervised generative adversarial network."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras import saving

from keras_gen import inputs, latent_search, latents, losses, optimization
from keras_gen.generative_model import GenerativeModel
from keras_gen.networks.conditional import feature_network
from keras_gen.networks.semi_supervised import (
    semi_supervised_discriminator,
    semi_supervised_generator,
)

tfd = tfp.distributions


@saving.register_keras_serializable(package="keras_gen")
class SemiSupervisedGAN(GenerativeModel):
    """Generative adversarial network that learns classes from few labels.

    The discriminator is a classifier of K classes of real images and one more,
    of generated ones. It gives K logits l(x); that of the class "generated" is
    0, which loses no generality. So

        p(y given x, real) = softmax(l(x))[y]
        p(real given x) = sigmoid(d(x)),  d(x) = logsumexp(l(x))

    and `d` is the logit of an adversarial loss over all images, with a label
    or without (`y = -1`). Training the discriminator minimizes

        adversarial loss + classification_weight
            * (mean of -log p(y given x, real) of the images with labels)

    where the second mean is over the data set, not the batch: it is estimated
    by the batch's sum and the share of labels met so far, so that batches may
    hold any number of labels, also none. The generator matches the features of
    real images by default, which serves classification best.

    Each step updates the discriminator, then the generator. Logs `d_loss`,
    `g_loss`, `loss`, which is `g_loss`; `d_real_accuracy`, `d_fake_accuracy`
    and `diversity`, as in `GAN`; and `accuracy`, how often images with labels
    are classified rightly.

    Args:
        image_shape: `(height, width, channels)`.
        latent_dim: Integer, dimensions of z, which is standard normal.
        num_classes: Integer K, how many classes y may take.
        generator: Optional network, `(batch, latent_dim)` to images
            `(batch, *image_shape)` in [-1, 1]. Defaults to
            `networks.semi_supervised_generator`, which is dense.
        discriminator: Optional network, images in [-1, 1] to logits
            `(batch, num_classes)`. Defaults to
            `networks.semi_supervised_discriminator`, dense layers with noise.
            Without noise or dropout it learns few labels by heart.
        ema: Number between 0 and 1 or `None`, decay per step of the moving
            average of the generator's weights, from which all samples come.
            With `None` they come from the generator itself.
        seed: Integer or `None`, seed of all noise.

    Call arguments:
        z: Latents `(batch, latent_dim)`.

    Returns:
        Images, float32 in [0, 1].

    Raises:
        ValueError: If an argument is not as above, or the networks do not
            have these shapes.

    Example:

    >>> gan = SemiSupervisedGAN((28, 28, 1), latent_dim=64, num_classes=10)
    >>> gan.compile()
    >>> gan.fit(x, np.where(labelled, y, -1), epochs=20)
    >>> gan.classify(x_test)  # (batch, 10)

    Reference:
        - [Improved Techniques for Training GANs](
          https://arxiv.org/abs/1606.03498)
    """

    allows_unlabelled = True
    draws_classes = False  # there are some, but samples are of all

    def __init__(
        self,
        image_shape,
        latent_dim,
        num_classes,
        *,
        generator=None,
        discriminator=None,
        ema=0.999,
        seed=None,
        **kwargs,
    ):
        super().__init__(image_shape, seed=seed, **kwargs)
        self.latent_dim = inputs.check_positive_integer(
            latent_dim, "latent_dim"
        )
        self.num_classes = inputs.check_positive_integer(
            num_classes, "num_classes"
        )
        self.generator = generator or semi_supervised_generator(
            self.latent_dim, self.image_shape
        )
        self.discriminator = discriminator or semi_supervised_discriminator(
            self.image_shape, self.num_classes
        )
        inputs.check_network(
            self.generator, (self.latent_dim,), self.image_shape, "generator"
        )
        inputs.check_network(
            self.discriminator,
            self.image_shape,
            (self.num_classes,),
            "discriminator",
        )
        self.ema = None
        self.sampler = self.generator
        if ema is not None:
            self.ema = inputs.check_number(
                ema, "ema", minimum=0, maximum=1, exclusive=True
            )
            self.sampler = self.averaged_copy(self.generator)
        # Share of the training images that had labels, of late.
        self.labelled_share = self.add_weight(
            name="labelled_share",
            shape=(),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="mean",
        )
        self.add_metrics(
            "loss",
            "d_loss",
            "g_loss",
            "d_real_accuracy",
            "d_fake_accuracy",
            "accuracy",
            "diversity",
        )
        self.built = True

    @property
    def prior(self):
        """p(z): a `tfd.Distribution` over `(latent_dim,)`."""
        return tfd.MultivariateNormalDiag(tf.zeros(self.latent_dim))

    # Training

    def compile(
        self,
        d_optimizer=None,
        g_optimizer=None,
        loss="feature_matching",
        gradient_penalty=None,
        label_smoothing=0.0,
        classification_weight=1.0,
        **kwargs,
    ):
        """Configures training.

        Args:
            d_optimizer: The discriminator's. Defaults to `Adam(2e-4, 0.5)`.
            g_optimizer: The generator's, which is also `model.optimizer`.
                Defaults to `Adam(2e-4, 0.5)`.
            loss: As in `GAN.compile`.
            gradient_penalty: As in `GAN.compile`, on the slope of `d(x)`.
            label_smoothing: Number in [0, 1), taken off the label "real".
            classification_weight: Number, weight of the classification loss.
            **kwargs: `jit_compile`, `steps_per_execution` and `run_eagerly`,
                see `GenerativeModel.compile`.

        Raises:
            ValueError: If an argument is not as above, or both networks are
                given one optimizer.
        """
        self.compiled = False  # until all arguments are found right
        inputs.check_two_optimizers(d_optimizer, g_optimizer, kwargs)
        d_optimizer = d_optimizer or keras.optimizers.Adam(2e-4, beta_1=0.5)
        g_optimizer = g_optimizer or keras.optimizers.Adam(2e-4, beta_1=0.5)
        self.adversarial_loss = losses.get(loss, label_smoothing)
        self.penalty = losses.get_penalty(gradient_penalty)
        losses.check_penalty(self.penalty, self.discriminator)
        self.classification_weight = inputs.check_number(
            classification_weight, "classification_weight", minimum=0
        )
        # A plain attribute: Keras would list its weights twice.
        self.__dict__["features"] = None
        if isinstance(self.adversarial_loss, losses.FeatureMatching):
            self.__dict__["features"] = feature_network(self.discriminator)
        self.d_optimizer = self.prepare_optimizer(
            d_optimizer,
            self.discriminator.trainable_weights,
            "d_optimizer",
        )
        super().compile(
            self.prepare_optimizer(
                g_optimizer,
                self.generator.trainable_weights,
                "g_optimizer",
            ),
            **kwargs,
        )

    @property
    def optimizers(self):
        return [self.optimizer, self.d_optimizer]

    @property
    def g_optimizer(self):
        """The generator's optimizer, which is `model.optimizer`."""
        return self.optimizer

    def train_step(self, data):
        x, y = self.unpack(data)
        real = 2.0 * x - 1.0
        d_logs = self.discriminator_step(real, tf.cast(y, "int32"))
        g_logs = self.generator_step(real)
        if self.ema is not None:
            self.update_moving_average(self.sampler, self.generator, self.ema)
        return self.log(loss=g_logs["g_loss"], **d_logs, **g_logs)

    def discriminator_step(self, real, y):
        """Updates the discriminator on images in [-1, 1]; gives its logs."""
        batch = tf.shape(real)[0]
        fake = self.generate(batch, training=True)
        mix = self.uniform(tf.stack([batch, 1, 1, 1]), training=True)
        share = self._update_labelled_share(y)
        weights = self.discriminator.trainable_weights
        with tf.GradientTape() as tape:
            logs = self.discriminator_logs(real, fake, y, share, mix)
            total = logs["d_loss"] + optimization.regularization(
                self.discriminator
            )
            scaled_loss = self.scale_loss(total, self.d_optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.d_optimizer)
        if isinstance(self.penalty, losses.WeightClipping):
            self.penalty.clip(weights)
        return logs

    def discriminator_logs(self, real, fake, y, share, mix=None):
        """Loss and accuracies of the discriminator.

        Args:
            real: Images in [-1, 1].
            fake: Generated ones.
            y: int32 classes `(batch,)`, -1 for none.
            share: Number, how many of the real images have labels.
            mix: Uniform noise `(batch, 1, 1, 1)` of the gradient penalty in
                training; without it there is no penalty.
        """
        training = mix is not None
        class_logits = self._class_logits(real, training)
        real_logits = _real_logits(class_logits)
        fake_logits = self.discriminate(fake, training)
        d_loss = self.adversarial_loss.discriminator(real_logits, fake_logits)
        label = tf.one_hot(y, self.num_classes)  # zeros, if there is none
        entropy = -tf.reduce_sum(
            label * tf.nn.log_softmax(class_logits), axis=1
        )
        d_loss += self.classification_weight * tf.math.divide_no_nan(
            tf.reduce_mean(entropy), share
        )
        if training and self.penalty is not None:
            d_loss += self.penalty(
                lambda x: self.discriminate(x, True), real, fake, mix
            )
        self.logged["accuracy"].update_state(
            tf.argmax(class_logits, axis=1, output_type="int32") == y,
            sample_weight=tf.cast(y >= 0, "float32"),
        )
        real_accuracy, fake_accuracy = losses.accuracies(
            self.adversarial_loss, real_logits, fake_logits
        )
        return {
            "d_loss": d_loss,
            "d_real_accuracy": real_accuracy,
            "d_fake_accuracy": fake_accuracy,
        }

    def _update_labelled_share(self, y):
        """The share of images with labels in the last thousand steps or so."""
        labelled = tf.cast(y >= 0, "float32")
        steps = tf.cast(self.d_optimizer.iterations + 1, "float32")
        rate = tf.maximum(1.0 / steps, 1e-3)
        before = self.labelled_share.value
        change = tf.reduce_mean(labelled) - before
        self.labelled_share.assign(before + rate * change)
        return self.labelled_share.value

    def generator_step(self, real):
        """Updates the generator; gives its logs."""
        weights = self.generator.trainable_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in weights])
            fake = self.generate(tf.shape(real)[0], training=True)
            g_loss = self.generator_loss(real, fake, training=True)
            total = g_loss + optimization.regularization(self.generator)
            scaled_loss = self.scale_loss(total, self.optimizer)
        gradients = tape.gradient(scaled_loss, weights)
        self.apply_gradients(gradients, weights, self.optimizer)
        return {"g_loss": g_loss, "diversity": losses.diversity(real, fake)}

    def generator_loss(self, real, fake, training=False):
        """Loss of the generator, of images in [-1, 1]."""
        judge = self.features or self.discriminate
        judged = judge(fake, training=training)
        if not losses.generator_sees_real(self.adversarial_loss):
            return self.adversarial_loss.generator(None, judged)
        return self.adversarial_loss.generator(
            judge(real, training=training), judged
        )

    def test_step(self, data):
        x, y = self.unpack(data)
        real = 2.0 * x - 1.0
        fake = self.generate(tf.shape(x)[0])
        share = tf.reduce_mean(tf.cast(y >= 0, "float32"))  # of this batch
        d_logs = self.discriminator_logs(real, fake, tf.cast(y, "int32"), share)
        g_loss = self.generator_loss(real, fake)
        diversity = losses.diversity(real, fake)
        return self.log(
            loss=g_loss, g_loss=g_loss, diversity=diversity, **d_logs
        )

    # Below, images are in [-1, 1].

    def generate(self, num_samples, training=False):
        """Fresh images of the generator that is trained."""
        z = self.normal(tf.stack([num_samples, self.latent_dim]), training)
        return tf.cast(self.generator(z, training=training), "float32")

    def discriminate(self, images, training=False):
        """Logits d(x) of p(real given x), `(batch, 1)`, float32."""
        return _real_logits(self._class_logits(images, training))

    def _class_logits(self, images, training=False):
        logits = self.discriminator(images, training=training)
        return tf.cast(logits, "float32")

    # Verbs

    def call(self, z, training=False):
        return self._decode(z, training)

    def _decode(self, z, training=False):
        images = tf.cast(self.sampler(z, training=training), "float32")
        return tf.clip_by_value(0.5 * images + 0.5, 0.0, 1.0)

    def classify(self, x):
        """p(y given x, real), `(batch, num_classes)` float32.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        return self.graph(self._classify, self.images_from(x))

    def _classify(self, x):
        return tf.nn.softmax(self._class_logits(2.0 * x - 1.0))

    def sample(self, num_samples, *, condition=None, seed=None):
        """Images of latents drawn from the prior, by the averaged generator.

        Args:
            num_samples: Integer, how many.
            condition: `None`: samples are of all classes, not of a given one.
            seed: Integer for the same images each time, or `None`.

        Returns:
            `(num_samples, *image_shape)` float32 in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_no_condition(condition, self)
        if not tf.is_tensor(num_samples):
            inputs.check_positive_integer(num_samples, "num_samples")
        return self.graph(self._sample, num_samples, self.verb_seed(seed))

    def _sample(self, num_samples, seed):
        return self._decode(self._latents(num_samples, seed=seed))

    def _latents(self, *leading, seed):
        shape = tf.stack([*leading, self.latent_dim])
        return tf.random.stateless_normal(shape, seed, alg="philox")

    def interpolate(self, a, b, num_steps=8, *, method="spherical"):
        """Images on the way from some latents to others.

        Args:
            a: Latents to begin with, `(batch, latent_dim)`.
            b: Latents to end with, one for each.
            num_steps: Integer of at least 2, both ends included.
            method: `"spherical"` or `"linear"`, see `latents.interpolate`.

        Returns:
            `(num_steps, batch, *image_shape)` float32 in [0, 1].

        Raises:
            ValueError: If an argument is not as above.
        """
        path = latents.check_path(a, b, num_steps, method, self.latent_dim)
        z = np.reshape(path, (-1, self.latent_dim))
        images = self.graph(self._decode, z)
        return tf.reshape(images, (*path.shape[:2], *self.image_shape))

    def project(self, x, *, num_steps=300, num_starts=4, seed=None):
        """Latents that reproduce images, found by gradient descent.

        They minimize `sum((gan(z) - x)**2) + 0.01 * sum(z**2)`, see
        `latent_search.search`.

        Args:
            x: Images `(batch, *image_shape)`, uint8 or float in [0, 1].
            num_steps: Integer, steps of the descent.
            num_starts: Integer, descents for each image, from latents drawn
                from the prior, of which the best one counts.
            seed: Integer for the same latents each time, or `None`.

        Returns:
            `(batch, latent_dim)` float32.

        Raises:
            ValueError: If an argument is not as above.
        """
        inputs.check_positive_integer(num_steps, "num_steps")
        inputs.check_positive_integer(num_starts, "num_starts")
        x = self.images_from(x)
        return self.graph(
            self._project, x, num_steps, num_starts, self.verb_seed(seed)
        )

    def _project(self, x, num_steps, num_starts, seed):
        return latent_search.project(
            lambda z: 0.5 * tf.cast(self.sampler(z), "float32") + 0.5,
            x,
            self._latents(num_starts, tf.shape(x)[0], seed=seed),
            num_steps,
        )

    # Saving

    def get_compile_config(self):
        if not self.compiled:
            return None
        config = super().get_compile_config()
        return {
            "g_optimizer": config.pop("optimizer"),
            **config,
            "d_optimizer": saving.serialize_keras_object(self.d_optimizer),
            "loss": saving.serialize_keras_object(self.adversarial_loss),
            "gradient_penalty": saving.serialize_keras_object(self.penalty),
            "classification_weight": self.classification_weight,
        }

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "num_classes": self.num_classes,
            "generator": saving.serialize_keras_object(self.generator),
            "discriminator": saving.serialize_keras_object(self.discriminator),
            "ema": self.ema,
        }


def _real_logits(class_logits):
    """d(x), `(batch, 1)`."""
    return tf.reduce_logsumexp(class_logits, axis=1, keepdims=True)
