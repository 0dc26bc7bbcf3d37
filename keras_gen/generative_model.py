"""What every model of keras_gen needs over `keras.Model`."""

import contextlib
import functools
import inspect
import numbers
import os
import types
import warnings
import weakref

import keras
import numpy as np
import tensorflow as tf
from keras import saving

from keras_gen import (
    execution,
    feeding,
    files,
    inputs,
    optimization,
    randomness,
)

MAX_SKIPPED_IN_A_ROW = 20
VERBS = ("sample", "encode", "decode", "reconstruct", "log_prob", "classify")


class GenerativeModel(keras.Model):
    """A `keras.Model` of images that trains with its own `train_step`.

    It holds no algorithm. It checks the data before training starts, applies
    gradients rightly under mixed precision and `tf.distribute`, for one or two
    optimizers, gives random numbers that replicas do not share and that
    resume, keeps moving averages of weights, and saves and exports all of it.

    A subclass builds its networks in `__init__`, names what it logs with
    `add_metrics`, sets `self.built = True`, and writes `compile`,
    `train_step`, `test_step`, `get_config` and its verbs. That of a model of
    other data than images gives `event_shape`, and replaces `check_data` and
    `images_from`.

    Args:
        image_shape: `(height, width, channels)`, 1 to 4 channels.
        seed: Integer or `None`, seed of all random numbers of the model.
        event_shape: Shape of what is not an image; `image_shape` is then
            `None`.
        **kwargs: `name`; and `dtype`, which must be the global policy, since
            the layers that constructors make take theirs from there.

    Raises:
        ValueError: If `image_shape`, `seed` or `dtype` is not as above.
    """

    num_classes = None
    condition_dim = None
    allows_unlabelled = False  # whether a label may be -1
    draws_classes = True  # whether samples are of the classes asked for
    log_prob_kind = None

    def __init__(self, image_shape, *, seed=None, event_shape=None, **kwargs):
        super().__init__(**kwargs)
        inputs.check_dtype_policy(self.dtype_policy)
        if event_shape is None:
            event_shape = image_shape = inputs.check_image_shape(image_shape)
        self.image_shape, self.event_shape = image_shape, event_shape
        if seed is not None:
            seed = inputs.check_seed(seed)
        self.seed = seed
        self.train_seeds = randomness.ReplicaSeedGenerator(seed)
        # Validation and sampling draw elsewhere, so that neither changes
        # the course of training.
        self.eval_seeds = randomness.ReplicaSeedGenerator(
            None if seed is None else (seed + 1) % 2**63
        )
        self.logged = {}
        self.skipped = keras.metrics.Sum(name="skipped_updates")
        self.skipped_in_a_row = self.add_weight(
            name="skipped_in_a_row",
            shape=(2,),
            # XLA on a GPU reaches no int32 variables: they live on the host.
            dtype="int64",
            initializer="zeros",
            trainable=False,
        )
        self.epoch = 0
        self._hasty = False  # while a step is traced: see execution.py
        self._batches_to_skip = 0
        self._starts = []
        # A plain dictionary: Keras and TensorFlow would track its functions.
        self.__dict__["_graphs"] = {}

    # Compilation

    def compile(
        self,
        optimizer,
        *,
        jit_compile="auto",
        steps_per_execution=None,
        run_eagerly=False,
    ):
        """Configures training; `optimizer` comes from `prepare_optimizer`.

        Args:
            optimizer: The optimizer that stock Keras callbacks act on.
            jit_compile: Whether XLA compiles the training step, whose noise
                is another then. `"auto"` is `True` on one CPU device for
                networks without what XLA cannot compile or slows down there:
                convolutions, and layers such as Dropout, whose noise takes
                many times as long; on a GPU it is Keras's choice.
            steps_per_execution: Training steps a call. Defaults to 50, with
                convolutions to 10, or less for short epochs and where `fit`
                is given a `steps_per_epoch` that these do not divide; and to
                1 under a strategy.
            run_eagerly: Whether steps run without a graph, for debugging.

        Raises:
            ValueError: If it is called outside the scope of the strategy that
                the model was built in, asks for what a strategy cannot do, or
                `steps_per_execution` is not a positive integer.
        """
        self._check_scope()
        if steps_per_execution is not None:
            steps_per_execution = inputs.check_positive_integer(
                steps_per_execution, "steps_per_execution"
            )
        run_eagerly = inputs.check_boolean(run_eagerly, "run_eagerly")
        if jit_compile != "auto":
            jit_compile = inputs.check_boolean(jit_compile, "jit_compile")
        has_strategy = tf.distribute.has_strategy()
        convolutional = not self._is_dense()
        if has_strategy and jit_compile is True:
            raise ValueError(
                "`jit_compile=True` does not work under a `tf.distribute` "
                "strategy. Leave `jit_compile` out."
            )
        if has_strategy and (steps_per_execution or 1) != 1:
            raise ValueError(
                f"`steps_per_execution={steps_per_execution}` does not work "
                "under a `tf.distribute` strategy. Leave it out."
            )
        self._compile_arguments = {
            "jit_compile": jit_compile,
            "steps_per_execution": steps_per_execution,
            "run_eagerly": run_eagerly,
        }
        if steps_per_execution is None:
            steps_per_execution = 10 if convolutional else 50
            if has_strategy or run_eagerly:
                steps_per_execution = 1
        if jit_compile == "auto" and not tf.config.list_physical_devices("GPU"):
            unsuited = any(
                hasattr(layer, "seed_generator") or not layer.supports_jit
                for layer in self._flatten_layers(include_self=False)
            )
            jit_compile = not (
                convolutional or unsuited or has_strategy or run_eagerly
            )
        self._in_one_program = jit_compile is True and not convolutional
        self._most_steps = steps_per_execution
        randomness.separate_replicas(self)
        super().compile(
            optimizer=optimizer,
            jit_compile=jit_compile,
            steps_per_execution=steps_per_execution,
            run_eagerly=run_eagerly,
            auto_scale_loss=False,
        )

    def _is_dense(self):
        """Whether there are no convolutions, which XLA slows down on a CPU."""
        kernels = (
            getattr(layer, "kernel", None) for layer in self._flatten_layers()
        )
        return all(
            len(kernel.shape) != 4 for kernel in kernels if kernel is not None
        )

    def prepare_optimizer(self, optimizer, weights, argument="optimizer"):
        """An optimizer that is built, and scales the loss in float16.

        Args:
            optimizer: A Keras optimizer, or its name.
            weights: The variables that it is to update.
            argument: What messages call it.

        Returns:
            The optimizer, in a `SyncedLossScaleOptimizer` if a layer computes
            in float16.
        """
        self._check_scope()
        half = any(
            getattr(layer, "compute_dtype", None) == "float16"
            for layer in self._flatten_layers()
        )
        return optimization.prepare(optimizer, weights, half, argument)

    def _check_scope(self):
        if self._distribute_strategy is not (
            tf.distribute.get_strategy()
            if tf.distribute.has_strategy()
            else None
        ):
            raise ValueError(
                "`compile` must be called where the model was made. Create "
                "the model and the optimizers and call `compile` inside the "
                "same `strategy.scope()`; elsewhere the replicas would drift "
                "apart."
            )

    @property
    def optimizers(self):
        """The one or two of the compiled model, the main one first."""
        return [self.optimizer]

    def get_compile_config(self):
        """Arguments of `compile` beyond a lone optimizer are added here."""
        if self.compiled:
            return {
                "optimizer": saving.serialize_keras_object(self.optimizer),
                **self._compile_arguments,
            }

    def compile_from_config(self, config):
        self.compile(**saving.deserialize_keras_object(config))

    # Inside a training step

    def unpack(self, data):
        """Splits a batch into images in [0, 1] and their condition.

        Args:
            data: What `train_step` is given.

        Returns:
            `(x, condition)`: float32 `(batch, *image_shape)`, and the labels
            or vectors of a conditional model, otherwise `None`.
        """
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        conditional = self.num_classes or self.condition_dim
        return self.to_float(x), y if conditional else None

    def to_float(self, x):
        """Images as float32 in [0, 1]; integers are taken as 0 to 255."""
        x = tf.ensure_shape(tf.convert_to_tensor(x), (None, *self.event_shape))
        if x.dtype.is_integer:
            return tf.cast(x, "float32") / 255.0
        return tf.cast(x, "float32")

    def next_seed(self, training=False):
        """An int32 `(2,)` seed that no other replica gets."""
        return (self.train_seeds if training else self.eval_seeds).next()

    def normal(self, shape, training=False):
        """Standard normal noise, `shape` float32, for this replica's rows."""
        return self._draw(tf.random.stateless_normal, shape, training)

    def uniform(self, shape, training=False):
        """Noise uniform in [0, 1), `shape` float32, for this replica's rows."""
        return self._draw(tf.random.stateless_uniform, shape, training)

    def _draw(self, stateless_draw, shape, training):
        seeds = self.train_seeds if training else self.eval_seeds
        return randomness.draw_rows(stateless_draw, shape, seeds.next_shared())

    def scale_loss(self, loss, optimizer):
        """What the tape differentiates for a replica's mean `loss`.

        Gradients are summed over the replicas, so each takes its share;
        optimizers under float16 scale it against underflow.
        """
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        loss = tf.cast(loss, "float32") / num_replicas
        return optimizer.scale_loss(loss)

    def apply_gradients(self, gradients, weights, optimizer):
        """Updates `weights`, unless a gradient on any replica is not finite.

        Args:
            gradients: Of the loss from `scale_loss`, one for each weight.
            weights: List of variables.
            optimizer: The optimizer that was prepared for them.

        Raises:
            ValueError: If no weight has a gradient.
        """
        if all(gradient is None for gradient in gradients):
            # Keras would take what an empty list raises for the end of data.
            name = getattr(optimizer, "inner_optimizer", optimizer).name
            raise ValueError(
                f"The optimizer {name!r} has nothing to update, as none of "
                f"{len(weights)} trainable weights has a gradient. Set "
                "`trainable = True` on the network and call `compile` again, "
                "and let the loss depend on its weights."
            )
        if self._hasty:
            optimization.apply_at_once(optimizer, gradients, weights)
            finite = tf.constant(True)
        else:
            finite = optimization.apply_if_finite(optimizer, gradients, weights)
        index = [o is optimizer for o in self.optimizers].index(True)
        self.count_skipped(finite, index)

    def count_skipped(self, finite, index=0):
        """Counts an update in the logs, and those skipped in a row.

        Args:
            finite: Boolean, whether it was made, as all was finite.
            index: Integer, of which of the `optimizers`.
        """
        skipped = 1 - tf.cast(finite, "int64")
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self.skipped.update_state(tf.cast(skipped, "float32") / num_replicas)
        before = self.skipped_in_a_row.value
        # It stays at the limit, for `fit` to see after the execution.
        row = tf.where(
            before < MAX_SKIPPED_IN_A_ROW, (before + 1) * skipped, before
        )
        self.skipped_in_a_row.assign(
            tf.where(tf.range(2) == index, row, before)
        )

    def averaged_copy(self, network):
        """A copy of `network` for the moving average of its weights."""
        # Of what lives here, so that it need not be registered; a file with
        # lambdas is refused where the network itself is read from it.
        with _named_objects(network) as objects:
            copy = saving.deserialize_keras_object(
                saving.serialize_keras_object(network), custom_objects=objects
            )
        if not copy.built:
            copy.build(network.input_shape)
        copy.set_weights(network.get_weights())
        copy.trainable = False
        return copy

    def update_moving_average(self, average, network, decay):
        """Moves the weights of `average` to `network`'s, by `1 - decay`."""
        for old, new in zip(average.weights, network.weights, strict=True):
            value = tf.cast(new.value, old.dtype)
            if not new.trainable:  # batch statistics of a skipped step
                value = tf.where(tf.math.is_finite(value), value, old)
            old.assign(old + (1.0 - decay) * (value - old))

    # Logs

    def add_metrics(self, *names):
        """Names the means that `log` reports; `"loss"` is among them."""
        self.logged.update({name: keras.metrics.Mean(name) for name in names})

    def log(self, **values):
        """Updates the means of the epoch with scalars or `(batch,)` values."""
        for name, value in values.items():
            self.logged[name].update_state(value)
        return self.get_metrics_result()

    @property
    def metrics(self):
        # Keras adds a tracker called "loss" that only its own step updates.
        tracker = getattr(self, "_loss_tracker", None)
        metrics = [m for m in super().metrics if m is not tracker]
        return sorted(metrics, key=lambda metric: metric is self.skipped)

    # Training

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_batch_size=None,
        **kwargs,
    ):
        """Trains the model; arguments and result are those of `keras.Model`.

        Args:
            x: Images, uint8 or float in [0, 1]: an array, a `tf.data.Dataset`
                or a `keras.utils.PyDataset` of batches, of `x` or `(x, y)`.
                One without end needs `steps_per_epoch`.
            y: Class ids `(batch,)` or vectors `(batch, condition_dim)`, if `x`
                is an array. A model that is not conditional ignores them.
            batch_size: Integer, over all replicas. Defaults to 32.

        Raises:
            ValueError: If the data is not what the model takes, or the sizes
                and numbers are not positive.
            FloatingPointError: If 20 updates in a row were skipped because
                gradients were not finite.
        """
        self._assert_compile_called("fit")
        for name in ("class_weight", "sample_weight"):
            if kwargs.pop(name, None) is not None:
                raise ValueError(
                    f"`{name}` is not used by generative models. Leave it "
                    "out, or repeat the images that should count more."
                )
        inputs.check_count(epochs, "epochs")
        inputs.check_count(initial_epoch, "initial_epoch")
        if steps_per_epoch is not None:
            steps_per_epoch = inputs.check_positive_integer(
                steps_per_epoch, "steps_per_epoch"
            )
        if validation_split and validation_data is None:
            inputs.check_number(validation_split, "validation_split", 0, 1)
            if not hasattr(x, "shape"):
                raise ValueError(
                    "`validation_split` cuts arrays alone, got `x` of type "
                    f"{type(x).__name__}. Pass `validation_data` instead."
                )
            cut = int(len(x) * (1.0 - validation_split))
            validation_data = x[cut:] if y is None else (x[cut:], y[cut:])
            x, y = x[:cut], None if y is None else y[:cut]
        if validation_batch_size is None:
            validation_batch_size = batch_size
        else:
            inputs.check_positive_integer(
                validation_batch_size, "validation_batch_size"
            )
        if isinstance(kwargs.get("validation_freq"), numbers.Number):
            inputs.check_positive_integer(
                kwargs["validation_freq"], "validation_freq"
            )
        if validation_data is not None:
            held_out = _pair(validation_data)
            validation_data = self._checked(
                *held_out,
                batch_size=validation_batch_size,
                argument="validation_data",
                steps=("validation_steps", kwargs.get("validation_steps")),
            )
        data = self._checked(
            x,
            y,
            batch_size=batch_size,
            shuffle=shuffle,
            steps_per_epoch=steps_per_epoch,
        )
        self._fit_executions(steps_per_epoch, int(data.cardinality()))
        if steps_per_epoch and isinstance(x, tf.data.Dataset):
            num_batches = int(x.cardinality())
            if 0 <= num_batches < steps_per_epoch:
                warnings.warn(
                    f"`x` has {num_batches} batches, fewer than "
                    f"`steps_per_epoch={steps_per_epoch}`: it is repeated.",
                    stacklevel=2,
                )
        self._starts = []
        if isinstance(x, tf.data.Dataset) and not steps_per_epoch:
            self._starts.append((x, 1))
        if validation_data is not None and isinstance(
            held_out[0], tf.data.Dataset
        ):
            freq = kwargs.get("validation_freq", 1)
            self._starts.append((held_out[0], freq))
        self._initial_epoch = None  # a former fit's, which Keras leaves here
        self._batches_to_skip = 0
        self.skipped_in_a_row.assign([0, 0])
        callbacks = [_Watch(), *_listed(callbacks)]
        _introduce(callbacks)
        return super().fit(
            data,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=validation_data,
            shuffle=False,  # done already
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            **kwargs,
        )

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        """Means over the data of what `test_step` logs, as `keras.Model`."""
        if not kwargs.get("_use_cached_eval_dataset"):
            self._assert_compile_called("evaluate")
            if sample_weight is not None:
                raise ValueError(
                    "`sample_weight` is not used by generative models. Leave "
                    "it out."
                )
            x = self._checked(
                x, y, batch_size=batch_size, steps=("steps", steps)
            )
            y = None
        with warnings.catch_warnings():
            if self.distribute_strategy.num_replicas_in_sync > 1:
                # They share the images anew, in batches that no one counts.
                warnings.filterwarnings("ignore", "Your input ran out of data")
            logs = super().evaluate(
                x,
                y,
                verbose=verbose,
                steps=steps,
                callbacks=callbacks,
                return_dict=True,
                **kwargs,
            )
        # The loss comes first, and updates that were skipped are not asked for.
        logs = {name: logs[name] for name in self.logged}
        values = list(logs.values())
        return logs if return_dict else values if values[1:] else values[0]

    def train_on_batch(self, x, y=None, *arguments, **options):
        """One training step on arrays `x` and `y`, as `keras.Model`."""
        self._check_batch(x, y)
        return super().train_on_batch(x, y, *arguments, **options)

    def test_on_batch(self, x, y=None, *arguments, **options):
        """What `test_step` logs of arrays `x` and `y`, as `keras.Model`."""
        self._check_batch(x, y)
        return super().test_on_batch(x, y, *arguments, **options)

    def _check_batch(self, x, y):
        with warnings.catch_warnings():  # one image is nothing unusual here
            warnings.simplefilter("ignore")
            self.check_data(x, y)

    def predict(self, x, *arguments, **options):
        """What `call` gives of batches of `x`, as `keras.Model`."""
        parts = x if isinstance(x, tuple | list) else [x]
        if all(isinstance(p, np.ndarray | tf.Tensor | str) for p in parts):
            if "x" in inspect.signature(self.call).parameters:
                self.images_from(parts[0])
            if len(parts) == 2 and (self.num_classes or self.condition_dim):
                self._check_call_condition(parts[1], len(parts[0]))
        return super().predict(x, *arguments, **options)

    def _check_call_condition(self, condition, batch):
        inputs.check_labels(
            condition,
            batch,
            num_classes=self.num_classes,
            condition_dim=self.condition_dim,
            argument="condition",
        )

    def _fit_executions(self, steps_per_epoch, num_batches):
        """Shortens executions that are longer than an epoch has use for.

        Keras runs whole ones, also beyond the end of `steps_per_epoch`, and
        counts all steps of the one in which data of `num_batches` ends.
        """
        steps, given = self._most_steps, self._compile_arguments
        if steps_per_epoch and steps_per_epoch % steps:
            if given["steps_per_execution"] is not None:
                raise ValueError(
                    "`steps_per_epoch` must be a multiple of the "
                    f"`steps_per_execution={steps}` that `compile` was given, "
                    f"got {steps_per_epoch}. Change one of them, or leave "
                    "`steps_per_execution` out."
                )
            steps = next(
                n for n in range(steps, 0, -1) if steps_per_epoch % n == 0
            )
        elif num_batches > 0 and given["steps_per_execution"] is None:
            steps = min(steps, num_batches)
        if steps != self.steps_per_execution:
            self.steps_per_execution = steps
            self.train_function = self.test_function = None
            self.predict_function = None

    def _checked(
        self,
        x,
        y=None,
        *,
        batch_size=None,
        argument="x",
        steps=None,
        **feeding_,
    ):
        """Data as one dataset, or the `ValueError` that says what to mend.

        Replicas get equal shares of each batch, and none an empty one: in
        training short batches are dropped, and in evaluation all images are
        kept but at most the last `num_replicas - 1`.
        """
        # Not again what the last `fit` took: to look at a first batch costs as
        # much as ten steps, and one more start of a dataset is another order.
        if y is not None or all(x is not known for known, _ in self._starts):
            self.check_data(x, y, argument=argument)
        conditional = self.num_classes or self.condition_dim
        if not conditional:
            y = None
        if batch_size is not None:
            inputs.check_positive_integer(batch_size, "batch_size")
        default = ("steps_per_epoch", feeding_.get("steps_per_epoch"))
        name, count = steps or default
        if count is None and feeding.is_endless(x):
            raise ValueError(
                f"`{name}` must be given, as `{argument}` is a dataset without "
                "end. Pass it, or leave out `repeat`."
            )
        num_replicas = self.distribute_strategy.num_replicas_in_sync
        training = "shuffle" in feeding_
        several = tf.distribute.has_strategy() or self._distribute_strategy
        if training and several and isinstance(x, tf.data.Dataset):
            spec = tf.nest.flatten(x.element_spec)[0]
            if spec.shape[0] is None:
                raise ValueError(
                    f"`{argument}` may end with a batch too short for all "
                    "replicas. Batch it with `drop_remainder=True`."
                )
            feeding.check_shares(
                spec.shape[0], num_replicas, f"Batches of `{argument}`"
            )
        in_batches = isinstance(x, tf.data.Dataset | keras.utils.PyDataset)
        if training and batch_size and not in_batches:
            feeding.check_shares(batch_size, num_replicas, "`batch_size`")
        batch_size = batch_size or 32
        batch_size = max(1, batch_size // num_replicas) * num_replicas
        feeding_.setdefault("shuffle", False)
        # TensorFlow keeps the functions of data sets for good: one that held
        # the model would never let go of it.
        position = weakref.WeakMethod(self._position)
        dataset = feeding.epochs_of(
            x,
            y,
            batch_size=batch_size,
            drop_remainder=bool(training and several),
            num_replicas=num_replicas,
            position=lambda: position()(),
            **feeding_,
        )
        if not conditional:
            # Not all that may stand beside images compiles.
            dataset = feeding.without_labels(dataset)
        if in_batches and not training:
            dataset = feeding.even_batches(dataset, num_replicas)
        if steps and count is not None:  # see `_fit_executions`
            dataset = dataset.take(inputs.check_positive_integer(count, name))
        return dataset

    @property
    def check_data(self):
        """Function of `(x, y, argument)` that checks what `fit` is given."""
        return functools.partial(
            inputs.check_data,
            image_shape=self.image_shape,
            num_classes=self.num_classes,
            condition_dim=self.condition_dim,
            allow_unlabelled=self.allows_unlabelled,
        )

    def _position(self):
        seed = int(np.asarray(self.train_seeds.state)[0])
        return self.epoch, seed % (2**31 - 1)

    @property
    def resuming(self):
        """Whether a resumed `fit` still passes over batches of its epoch."""
        return self._batches_to_skip > 0

    def resume_at(self, epoch, batch):
        """Lets the running `fit` go on from there; for callbacks.

        To be called in `on_train_begin`. The batches before it are read and
        passed over, so that all that follow are those of a run that was never
        interrupted.

        Args:
            epoch: Integer, the epoch to go on with.
            batch: Integer, how many of its batches were trained on.
        """
        self._initial_epoch = epoch
        self._batches_to_skip = batch
        for dataset, freq in self._starts:
            for past in range(epoch):  # a seeded shuffle counts its starts
                if self._should_eval(past, freq):
                    next(iter(dataset), None)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras would call the model on training images to build it.
        if not self.built:
            raise ValueError(
                f"{type(self).__name__} is not built. Build all networks in "
                "its constructor and set `self.built = True`."
            )

    def _make_function(self, step_function):
        in_training = step_function == self.train_step
        statistics = [
            weight
            for layer in self._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
            for weight in layer.non_trainable_weights
        ]
        multi_worker = isinstance(
            self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy
        )

        def step(data):
            before = [tf.identity(weight.value) for weight in statistics]
            logs = step_function(data)
            if in_training:  # a skipped step must leave no NaN behind
                for weight, old in zip(statistics, before, strict=True):
                    new = weight.value
                    weight.assign(tf.where(tf.math.is_finite(new), new, old))
            if multi_worker:  # where Keras reduces logs over an axis
                logs = {k: tf.reshape(v, (1,)) for k, v in logs.items()}
            return logs

        function = super()._make_function(step)
        if not in_training:
            return function
        of_batches = function
        if self._in_one_program and self.steps_per_execution > 1:
            of_batches = self._steps_in_one_program(step)

        def resumable_function(iterator):
            if isinstance(iterator, types.GeneratorType):  # train_on_batch
                return function(iterator)
            if not self._batches_to_skip:
                return of_batches(iterator)
            count = min(self.steps_per_execution, self._batches_to_skip)
            self._batches_to_skip -= count
            for _ in range(count):
                next(iterator)
            return self.get_metrics_result()

        return resumable_function

    def _steps_in_one_program(self, step):
        def hasty_step(data):
            self._hasty = True
            try:
                return step(data)
            finally:
                self._hasty = False

        variables = [*self.variables]
        for metric in self.metrics:
            variables += metric.variables
        for optimizer in self.optimizers:
            variables += optimizer.variables
            if not optimization.keeps_failures(optimizer):
                hasty_step = None
        return execution.steps_in_one_program(
            (hasty_step, step),
            [variable.value for variable in variables],
            self.get_metrics_result,
            self.steps_per_execution,
        )

    # Verbs

    def images_from(self, x, argument="x"):
        """Checked images of a verb as float32 in [0, 1]."""
        if not tf.is_symbolic_tensor(x):
            x = inputs.check_images(x, self.image_shape, argument)
        return self.to_float(x)

    def observed_from(self, x, mask):
        """Checked images and mask of `impute`; what is missing becomes 0."""
        if not tf.is_symbolic_tensor(x):
            x = inputs.observed(x, mask)
        x = self.images_from(x)
        return x, inputs.mask_from(mask, x)

    def verb_seed(self, seed):
        """The int32 `(2,)` seed of a verb: of an integer, or the next one."""
        if seed is None:
            return self.eval_seeds.next_shared()
        if not tf.is_tensor(seed):
            seed = inputs.check_seed(seed)
        return randomness.seed_pair(seed)

    def graph(self, function, *arguments, compiled=False):
        """Calls a method of this model as a graph, traced at its first use.

        Args:
            function: The method.
            *arguments: Its arguments, tensors or what becomes one.
            compiled: Boolean, whether XLA compiles it, anew for each batch
                size, if the model has no convolutions and no strategy.
        """
        # Numbers of NumPy would bring dtypes of their own.
        arguments = [
            int(a) if isinstance(a, np.integer) else a for a in arguments
        ]
        if not tf.executing_eagerly():
            return function(*arguments)
        arguments = [tf.convert_to_tensor(a) for a in arguments]
        key = function.__name__, compiled
        if key not in self._graphs:
            # XLA fails under a strategy, and slows convolutions down.
            compiled &= self._is_dense() and not self._distribute_strategy
            self._graphs[key] = tf.function(
                function,
                reduce_retracing=not compiled,
                jit_compile=compiled,
                autograph=False,
            )
        return self._graphs[key](*arguments)

    # Saving

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for i, generator in enumerate(randomness.seed_generators(self)):
            store[f"seed_generator_{i}"] = np.asarray(generator.state)

    def load_own_variables(self, store):
        seeds = {k for k in store.keys() if k.startswith("seed_generator_")}
        super().load_own_variables(
            {k: store[k] for k in store.keys() if k not in seeds}
        )
        for i, generator in enumerate(randomness.seed_generators(self)):
            if f"seed_generator_{i}" in seeds:
                generator.state.assign(np.asarray(store[f"seed_generator_{i}"]))

    def save(self, filepath, overwrite=True, **kwargs):
        """Saves as `keras.Model.save`; a file that is replaced is never lost.

        Args:
            filepath: Path of a `.keras` file.
            overwrite: Whether an existing file is replaced without asking.

        Raises:
            ValueError: If the name does not end with `.keras`.
        """
        if not str(filepath).endswith(".keras"):
            raise ValueError(
                "`filepath` must end with '.keras', got "
                f"{str(filepath)[:200]!r}. For weights alone call "
                "`save_weights`, for a SavedModel `export`."
            )
        filepath = os.path.expanduser(filepath)
        if not overwrite and os.path.exists(filepath):
            return super().save(filepath, overwrite=False, **kwargs)
        with files.replacing(filepath) as part:
            super().save(part, **kwargs)

    @property
    def condition_shape(self):
        """Shape of one condition of a model with `condition_dim`."""
        return (self.condition_dim,)

    def endpoints(self):
        """The verbs of a SavedModel: `{name: (function, signature)}`."""
        spec = tf.TensorSpec
        arguments = {
            "x": spec((None, *self.event_shape), "float32", name="x"),
            "num_samples": spec((), "int32", name="num_samples"),
            "seed": spec((), "int64", name="seed"),
        }
        if self.num_classes:
            arguments["condition"] = spec((None,), "int64", name="condition")
        elif self.condition_dim:
            arguments["condition"] = spec(
                (None, *self.condition_shape), "float32", name="condition"
            )
        if hasattr(self, "decode"):
            width = getattr(self, "z_dim", None) or self.latent_dim
            arguments["z"] = spec((None, width), "float32", name="z")
        table = {}
        for verb in VERBS:
            if not hasattr(self, verb):
                continue
            taken = inspect.signature(getattr(self, verb)).parameters
            draws = taken.get("num_samples")
            if verb == "log_prob" and draws and draws.default is None:
                # It draws nothing, and has them for models to be exchangeable.
                taken = [n for n in taken if n not in ("num_samples", "seed")]
            taken = [arguments[name] for name in taken if name in arguments]
            if verb == "sample" and not self.draws_classes:
                taken = [spec for spec in taken if spec.name != "condition"]
            elif verb == "sample" and self.num_classes:
                # Without a condition, it is of all classes.
                table["conditional_sample"] = self._endpoint(verb, taken)
                taken = [spec for spec in taken if spec.name != "condition"]
            table[verb] = self._endpoint(verb, taken)
        return table

    def _endpoint(self, verb, signature):
        names = [spec.name for spec in signature]

        def endpoint(*values):
            return getattr(self, verb)(**dict(zip(names, values, strict=True)))

        # TensorFlow reads the names of the arguments off it.
        endpoint.__signature__ = inspect.Signature(
            [
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
                for name in names
            ]
        )
        return endpoint, signature

    def export(self, filepath, format="tf_saved_model", verbose=False):
        """Writes a SavedModel whose signatures are the verbs.

        It needs neither keras_gen nor TensorFlow Probability where it is
        loaded, takes any batch size, and gives what the verbs give in Python
        at the same seed: `loaded.sample(num_samples, seed)`, and where the
        model has them `encode(x)`, `decode(z)`, `reconstruct(x)`,
        `log_prob(x, num_samples, seed)`, or `log_prob(x)` where nothing is
        drawn, and `classify(x)`. Those of a conditional model take `condition`
        too; arguments stand in the order that they have in Python. With
        classes, `sample` draws them uniformly, and
        `conditional_sample(num_samples, condition, seed)` takes them. Classes
        and seeds are int64 where they are tensors, and `num_samples` int32.

        Args:
            filepath: Folder to write; an existing SavedModel is replaced when
                the new one is whole.
            format: `"tf_saved_model"`.
            verbose: Whether Keras prints what it wrote.

        Raises:
            ValueError: If `format` is another one, or `filepath` a file or a
                folder of something else.
        """
        if format != "tf_saved_model":
            raise ValueError(
                f"`format` must be 'tf_saved_model', got {format!r}. To "
                "convert a network alone, call `export` on it, for example "
                "`model.decoder.export(path, format='onnx')`."
            )
        filepath = os.path.expanduser(filepath)
        if os.path.isfile(filepath):
            raise ValueError(
                "`filepath` must be a folder to write, got the file "
                f"{str(filepath)[:200]!r}. Choose another name."
            )
        inside = os.listdir(filepath) if os.path.isdir(filepath) else []
        others = sorted(set(inside) - {"assets", "variables"})
        if others and "saved_model.pb" not in inside:
            raise ValueError(
                "`filepath` must be a new folder or a SavedModel to replace, "
                f"got {str(filepath)[:200]!r}, which holds something else: "
                f"{others[0][:80]!r}. Choose another name."
            )
        archive = keras.export.ExportArchive()
        archive.track(self)
        for name, (function, signature) in self.endpoints().items():
            archive.add_endpoint(name, function, input_signature=signature)
        with files.replacing(filepath) as part:
            archive.write_out(part, verbose=verbose)

    def get_config(self):
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        """Builds it and its parts under the dtype policy that it had."""
        with _dtype_policy(config.get("dtype")):
            parts = {
                name: saving.deserialize_keras_object(value)
                for name, value in config.items()
                if isinstance(value, dict | list)
            }
            return cls(**{**config, **parts})


def _pair(data):
    """`validation_data` as `(x,)` or `(x, y)`."""
    if not isinstance(data, tuple | list) or len(data) > 3:
        return (data,)
    if len(data) == 3 and data[2] is not None:
        raise ValueError(
            "`validation_data` must be `x` or `(x, y)`, got 3 items: weights "
            "of images are not used by generative models. Leave them out."
        )
    return tuple(data[:2])


@contextlib.contextmanager
def _named_objects(network):
    """What Keras must know by name to copy a network: `{name: object}`.

    Meanwhile functions have names of their own: those of lambdas, and of
    closures made by one function, are all the same.
    """
    kinds, functions = {}, {}
    for layer in network._flatten_layers():
        for value in (layer, *vars(layer).values()):
            if isinstance(value, types.FunctionType):
                functions[value] = value.__name__
            elif hasattr(value, "get_config"):
                kinds[type(value)] = saving.get_registered_name(type(value))
    objects = {name: kind for kind, name in kinds.items() if _is_custom(kind)}
    functions = {f: name for f, name in functions.items() if _is_custom(f)}
    try:
        for i, (function, name) in enumerate(functions.items()):
            function.__name__ = f"{name}_{i}"
            objects[saving.get_registered_name(function)] = function
        yield objects
    finally:
        for function, name in functions.items():
            function.__name__ = name


def _is_custom(item):
    return not str(item.__module__).startswith("keras.")


@contextlib.contextmanager
def _dtype_policy(policy):
    before = keras.config.dtype_policy()
    if policy is not None:
        keras.config.set_dtype_policy(keras.dtype_policies.get(policy))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _listed(callbacks):
    """Callbacks of any nesting, or those of a `CallbackList`, as one list."""
    listed = []
    for callback in tf.nest.flatten(callbacks):
        if isinstance(callback, keras.callbacks.CallbackList):
            listed += callback.callbacks
        elif callback is not None:
            listed.append(callback)
    return listed


def _introduce(callbacks):
    """Lets callbacks that measure act before those that monitor their values.

    A callback that measures has a method `direction(name)`, which gives
    `"min"` or `"max"` for a name that it puts into the logs, and else `None`.
    """
    measuring = [c for c in callbacks if hasattr(c, "direction")]
    callbacks.sort(key=lambda callback: callback not in measuring)
    for callback in callbacks:
        if getattr(callback, "mode", None) != "auto":
            continue
        for other in measuring:
            callback.mode = other.direction(callback.monitor) or callback.mode


class _Watch(keras.callbacks.Callback):
    """Tells the model its epoch, and ends training that is only skipped."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        row = np.max(np.asarray(self.model.skipped_in_a_row))
        if row < MAX_SKIPPED_IN_A_ROW:
            return
        whole = all(
            np.isfinite(np.asarray(weight)).all()
            for weight in self.model.trainable_weights
        )
        # Keras counts whole executions, also beyond the end of an epoch.
        batch = min(batch, (self.params.get("steps") or np.inf) - 1)
        logs = {k: float(np.mean(v)) for k, v in (logs or {}).items()}
        bad = [name for name, value in logs.items() if not np.isfinite(value)]
        raise FloatingPointError(
            f"{row} updates in a row were skipped because gradients were not "
            f"finite, up to batch {batch} of epoch {self.model.epoch} (not "
            f"finite in the logs: {', '.join(bad) or 'nothing'}). The weights "
            f"are {'those before them' if whole else 'not finite, either'}. "
            "Look for NaN in the data, lower the learning rate, or use float32 "
            "or mixed_bfloat16."
        )
