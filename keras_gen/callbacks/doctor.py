"""A callback that warns of known failures of training."""

import warnings

import keras

from keras_gen import inputs
from keras_gen.callbacks.chief import is_chief

# Measured on digits: the KL of a VAE that learns dips to 0.09 nats within its
# first 100 steps and rises from there, whether it has 2 or 64 latents; that of
# a collapsed one stays below 0.05 from there on.
COLLAPSED_KL = 0.05


class Doctor(keras.callbacks.Callback):
    """Warns, once and in one sentence, when training fails in a known way.

    It reads the logs of each epoch, changes nothing and costs nothing. A
    failure is one that shows in `patience` epochs in a row; each is told once
    in a `fit`, with its remedies, as a `UserWarning`.

    - Posterior collapse, of models that log `kl` (nats): the posterior equals
      the prior, `encode` is constant and the decoder does without the
      latents. It shows as `kl < 0.05`, or, where `kl` is held up (by free
      bits, for one), as no `active_units` while `kl` stands still.

    Args:
        patience: Integer, epochs in a row in which a failure must show.

    Raises:
        ValueError: If `patience` is not a positive integer.

    Example:

    >>> model.fit(train, epochs=20, callbacks=[Doctor()])

    Reference:
        - [Generating Sentences from a Continuous Space](
          https://arxiv.org/abs/1511.06349), on posterior collapse
    """

    def __init__(self, patience=3):
        super().__init__()
        self.patience = inputs.check_positive_integer(patience, "patience")

    def on_train_begin(self, logs=None):
        self.before = {}
        self.epochs_in_a_row = dict.fromkeys(CHECKS, 0)
        self.told = set()

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        for check in CHECKS:
            finding = check(logs, self.before)
            row = self.epochs_in_a_row[check] + 1 if finding else 0
            self.epochs_in_a_row[check] = row
            due = row >= self.patience and check not in self.told
            if due and is_chief(self.model):
                self.told.add(check)
                warnings.warn(finding, stacklevel=2)
        self.before = logs


def posterior_collapse(logs, before):
    """The sentence that tells of latents that carry nothing, or `None`.

    Args:
        logs: Dictionary of the epoch's means.
        before: That of the epoch before.
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
    return (
        f"Posterior collapse: {sign}, so that `encode` gives all images the "
        "same code and the decoder does without it; train again with a `beta` "
        "that is smaller or rises from 0 (`beta_warmup_steps`), with "
        "`free_bits`, or with a stronger encoder or a weaker decoder."
    )


CHECKS = (posterior_collapse,)
