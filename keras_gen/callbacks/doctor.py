"""A callback that warns of known failures of training."""

import inspect
import warnings

import keras

from keras_gen import inputs
from keras_gen.callbacks.chief import is_chief

# Measured on digits: the KL of a VAE that learns dips to 0.09 nats within its
# first 100 steps and rises from there, whether it has 2 or 64 latents; that of
# a collapsed one stays below 0.05 from there on.
COLLAPSED_KL = 0.05

# Measured on digits, 60 epochs of 15 steps: no GAN that learned had both
# accuracies above 0.99 for more than two epochs in a row, with any of six
# losses; at 1,000 times the generator's learning rate the discriminator had
# them in 59 epochs of 60, and diversity stayed within 3 % from one to the
# next. A WGAN-GP of 28-pixel digits had them in its first 5 epochs and learned:
# from the third on, diversity rose by more than 20 % in each.
SURE_ACCURACY = 0.99
STILL_DIVERSITY = 0.05
# In the same runs diversity was above 0.24 but for single epochs down to 0.21,
# also before anything was learned. With 100 times the discriminator's learning
# rate a generator had 0.04 to 0.16, with 1,000 times 0.00.
COLLAPSED_DIVERSITY = 0.2


class Doctor(keras.callbacks.Callback):
    """Warns, once and in one sentence, when training fails in a known way.

    It reads the logs of each epoch, changes nothing and costs nothing. A
    failure is one that shows in `patience` epochs in a row; each is told once
    in a `fit`, with those remedies that the model has arguments for, as a
    `UserWarning`.

    - Posterior collapse, of models that log `kl` (nats): the posterior equals
      the prior, `encode` is constant and the decoder does without the
      latents. It shows as `kl < 0.05`, or, where `kl` is held up (by free
      bits, for one), as no `active_units` while `kl` stands still.
    - A discriminator that wins, of models that log `d_real_accuracy` and
      `d_fake_accuracy`: it is right on both in more than 99 of 100 images, and
      generated ones change little, `diversity` by at most 5 % an epoch.
    - Mode collapse, of models that log `diversity`: generated images differ
      little compared with real ones, `diversity < 0.2`. Batches of one image
      say nothing: theirs is 1.

    Args:
        patience: Integer, epochs in a row in which a failure must show.

    Raises:
        ValueError: If `patience` is not a positive integer.

    Example:

    >>> model.fit(train, epochs=20, callbacks=[Doctor()])

    Reference:
        - [Generating Sentences from a Continuous Space](
          https://arxiv.org/abs/1511.06349), on posterior collapse
        - [Towards Principled Methods for Training GANs](
          https://arxiv.org/abs/1701.04862), on discriminators that win
    """

    def __init__(self, patience=3):
        super().__init__()
        self.patience = inputs.check_positive_integer(patience, "patience")

    def on_train_begin(self, logs=None):
        self.before = {}
        self.epochs_in_a_row = dict.fromkeys(CHECKS, 0)
        self.told = set()
        self.arguments = arguments_of(type(self.model))

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        for check in CHECKS:
            finding = check(logs, self.before, self.arguments)
            row = self.epochs_in_a_row[check] + 1 if finding else 0
            self.epochs_in_a_row[check] = row
            due = row >= self.patience and check not in self.told
            if due and is_chief(self.model):
                self.told.add(check)
                warnings.warn(finding, stacklevel=2)
        self.before = logs


def arguments_of(model_class):
    """Names of the arguments that a class of models is built and compiled with.

    Args:
        model_class: A subclass of `keras.Model`. What it hands on as
            `**kwargs` is looked up in the classes that it inherits from.

    Returns:
        Set of strings.

    Example:

    >>> "packing" in arguments_of(GAN)  # True
    """
    names = set()
    for method in ("__init__", "compile"):
        for parent in model_class.__mro__:
            if method not in vars(parent):
                continue
            parameters = inspect.signature(vars(parent)[method]).parameters
            names.update(parameters)
            kinds = [parameter.kind for parameter in parameters.values()]
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                break
    return names


def remedies(options, arguments):
    """The options that a model has, as the end of a sentence.

    Args:
        options: Pairs of an argument's name, or `None` for what any model
            has, and of what to do with it.
        arguments: The names that the model knows.
    """
    *others, last = [
        text for name, text in options if name is None or name in arguments
    ]
    return f"{', '.join(others)}, or {last}" if others else last


def posterior_collapse(logs, before, arguments):
    """The sentence that tells of latents that carry nothing, or `None`.

    Args:
        logs: Dictionary of the epoch's means.
        before: That of the epoch before.
        arguments: Names of the model's arguments, which remedies are of.
    """
    kl, kl_before = logs.get("kl"), before.get("kl")
    if kl is None:
        return None
    stands_still = kl_before is not None and abs(kl - kl_before) < 0.1 * kl
    if kl < COLLAPSED_KL:
        sign = f"`kl` stays below {COLLAPSED_KL} nats"
    elif logs.get("active_units", 1) < 1 and stands_still:
        sign = "`active_units` stays at 0"
    else:
        return None
    options = (
        ("beta", "a smaller `beta`"),
        ("beta_warmup_steps", "one that rises from 0 (`beta_warmup_steps`)"),
        ("free_bits", "`free_bits`"),
        (None, "a stronger encoder or a weaker decoder"),
    )
    return (
        f"Posterior collapse: {sign}, so that `encode` gives all images the "
        "same code and the decoder does without it; train again with "
        f"{remedies(options, arguments)}."
    )


def discriminator_wins(logs, before, arguments):
    """The sentence that tells of a generator with nothing to go by, or `None`.

    Args:
        logs: Dictionary of the epoch's means.
        before: That of the epoch before.
        arguments: Names of the model's arguments, which remedies are of.
    """
    names = ("d_real_accuracy", "d_fake_accuracy")
    # What is not finite is another failure.
    if not all(logs.get(name, 0.0) > SURE_ACCURACY for name in names):
        return None
    diversity = logs.get("diversity", 1.0)
    change = abs(diversity - before.get("diversity", diversity))
    if change > STILL_DIVERSITY * diversity:
        return None
    options = (
        (
            "gradient_penalty",
            "a `gradient_penalty` such as `losses.R1(1.0)`",
        ),
        ("instance_noise", "`instance_noise`"),
        ("d_steps", "fewer `d_steps`"),
        (None, "a smaller learning rate in `d_optimizer`"),
    )
    return (
        "The discriminator wins: `d_real_accuracy` and `d_fake_accuracy` stay "
        f"above {SURE_ACCURACY}, so that the generator learns little; train "
        f"again with {remedies(options, arguments)}."
    )


def mode_collapse(logs, before, arguments):
    """The sentence that tells of generated images that are alike, or `None`.

    Args:
        logs: Dictionary of the epoch's means.
        before: That of the epoch before.
        arguments: Names of the model's arguments, which remedies are of.
    """
    if not logs.get("diversity", 1.0) < COLLAPSED_DIVERSITY:
        return None
    options = (
        (None, "a smaller learning rate in `g_optimizer`"),
        ("gradient_penalty", "a `gradient_penalty`"),
        ("packing", "`packing`"),
        ("unrolled_steps", "`unrolled_steps`"),
        (None, "`layers.MinibatchDiscrimination` in the discriminator"),
    )
    return (
        f"Mode collapse: `diversity` stays below {COLLAPSED_DIVERSITY}, so "
        "that generated images are much alike; train again with "
        f"{remedies(options, arguments)}."
    )


CHECKS = (posterior_collapse, discriminator_wins, mode_collapse)
