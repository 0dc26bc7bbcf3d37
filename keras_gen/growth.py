"""When a progressive GAN grows: arithmetic, numbers in and numbers out."""

import collections
import math
import numbers

from keras import saving

from keras_gen import inputs

# Those of the release for one GPU of 16 GB.
BATCH_SIZES = {4: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}


class Phase(collections.namedtuple("Phase", "resolution is_fading start end")):
    """A stretch of training on one resolution.

    Attributes:
        resolution: Integer, pixels of the shorter side.
        is_fading: Boolean, whether the block of this resolution fades in.
        start, end: Images seen when it begins and when it is over; the last
            phase ends at infinity.
    """

    __slots__ = ()


@saving.register_keras_serializable(package="keras_gen")
class GrowthSchedule:
    """Resolution, fade and step of a progressive GAN, by images seen.

    Training begins with `stable_images` images at `start_resolution`, all of
    it at `alpha = 1`. Then, for each next resolution, twice the last one, it

    1. fades the new block in over `fade_images` images, `alpha = (images_seen -
       start of the fade) / fade_images`, from 0 up to 1;
    2. trains `stable_images` images at `alpha = 1`.

    At `end_resolution` the second goes on forever.

    Args:
        fade_images: Integer, images while a block fades in; 600,000 in the
            release, 800,000 in the paper.
        stable_images: Integer, images between two fades.
        batch_size: Images of a step, over all replicas: an integer, or a
            dictionary by resolution, in which a resolution that is missing
            has the value of the one below. Defaults to 128 up to 16 pixels,
            then 64, 32, 16, 8 and, from 512 on, 4. Each replica has an equal
            number, at least one: eight of them train on 8 images, not 4.
        learning_rate: Of both optimizers, a number or such a dictionary.
            Where it says nothing, they keep their own.
        start_resolution: Integer, 4 or 4 doubled several times.
        end_resolution: Integer, the last one, or `None` for one without end;
            a model ends at the size of its images.

    Call arguments:
        images_seen: Integer, images that the model was trained on so far.

    Returns:
        `(resolution, alpha)`: an integer and a float in [0, 1].

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> schedule = GrowthSchedule(fade_images=100, stable_images=50)
    >>> schedule(0), schedule(50), schedule(75), schedule(150)
    ((4, 1.0), (8, 0.0), (8, 0.25), (8, 1.0))

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """

    def __init__(
        self,
        fade_images=600_000,
        stable_images=600_000,
        batch_size=None,
        learning_rate=None,
        start_resolution=4,
        end_resolution=None,
    ):
        self.fade_images = _whole(fade_images, "fade_images")
        self.stable_images = _whole(stable_images, "stable_images")
        if not self.fade_images + self.stable_images:
            raise ValueError(
                "`fade_images` and `stable_images` must not both be 0, as no "
                "image would be left for a resolution. Pass for example "
                "`fade_images=600_000`."
            )
        self.start_resolution = check_resolution(
            start_resolution, "start_resolution"
        )
        self.end_resolution = end_resolution
        if end_resolution is not None:
            check_resolution(end_resolution, "end_resolution")
            if end_resolution < start_resolution:
                raise ValueError(
                    "`end_resolution` must not be below `start_resolution` = "
                    f"{start_resolution}, got {end_resolution}. Pass 4 times a "
                    "power of 2 that is as large or larger."
                )
        if batch_size is None:
            batch_size = BATCH_SIZES
        self.batch_size = by_resolution(
            batch_size, "batch_size", inputs.check_positive_integer
        )
        if min(self.batch_size, default=math.inf) > start_resolution:
            raise ValueError(
                "`batch_size` must have an entry for `start_resolution` = "
                f"{start_resolution} or below, got {str(batch_size)[:100]}. Add "
                f"for example `{start_resolution}: 16`."
            )
        self.learning_rate = by_resolution(
            {} if learning_rate is None else learning_rate,
            "learning_rate",
            _positive,
        )

    def __call__(self, images_seen):
        phase = self.phase(images_seen)
        if not phase.is_fading:
            return phase.resolution, 1.0
        return phase.resolution, (images_seen - phase.start) / self.fade_images

    def phase(self, images_seen):
        """The `Phase` that the next image belongs to."""
        images_seen = _whole(images_seen, "images_seen")
        resolution, start = self.start_resolution, 0
        if images_seen >= self.stable_images:
            period = self.fade_images + self.stable_images
            past = (images_seen - self.stable_images) // period
            if self.end_resolution is not None:
                past = min(past, self._num_doublings(self.end_resolution) - 1)
            if past >= 0:
                resolution *= 2 ** (past + 1)
                start = self.stable_images + past * period
                if images_seen < start + self.fade_images:
                    return Phase(
                        resolution, True, start, start + self.fade_images
                    )
                start += self.fade_images
        end = start + self.stable_images
        if resolution == self.end_resolution:
            end = math.inf
        return Phase(resolution, False, start, end)

    def images_at(self, resolution):
        """How many images are for one resolution, in fade and after it."""
        if resolution == self.start_resolution:
            return self.stable_images
        return self.fade_images + self.stable_images

    def images_left_at(self, resolution, images_seen):
        """How many images one resolution still gets, of those it is for."""
        left = self.total_images(resolution) - images_seen
        return min(max(0, left), self.images_at(resolution))

    def total_images(self, resolution=None):
        """Images from the start to the end of a resolution.

        Args:
            resolution: Integer. Defaults to `end_resolution`.

        Returns:
            Integer.

        Raises:
            ValueError: If there is none, or it is not one of the schedule.
        """
        resolution = self._end() if resolution is None else resolution
        check_resolution(resolution, "resolution")
        if resolution < self.start_resolution:
            raise ValueError(
                "`resolution` must not be below `start_resolution` = "
                f"{self.start_resolution}, got {resolution}."
            )
        doublings = self._num_doublings(resolution)
        period = self.fade_images + self.stable_images
        return self.stable_images + doublings * period

    def resolutions(self):
        """All resolutions, a list; a `ValueError` if there is no end."""
        doublings = self._num_doublings(self._end())
        return [self.start_resolution * 2**i for i in range(doublings + 1)]

    def batch_size_at(self, resolution):
        """Images of a step at a resolution, an integer."""
        return entry_at(self.batch_size, resolution)

    def learning_rate_at(self, resolution):
        """The learning rate at a resolution, or `None` for the optimizers'."""
        return entry_at(self.learning_rate, resolution)

    def ending_at(self, resolution):
        """This schedule with another `end_resolution`."""
        return type(self).from_config(
            {**self.get_config(), "end_resolution": resolution}
        )

    def _end(self):
        if self.end_resolution is None:
            raise ValueError(
                "`end_resolution` must be given for a schedule to have a last "
                "resolution, got None. Pass one, or call `ending_at(1024)`."
            )
        return self.end_resolution

    def _num_doublings(self, resolution):
        return (resolution // self.start_resolution).bit_length() - 1

    def _arguments(self):
        return {
            "fade_images": self.fade_images,
            "stable_images": self.stable_images,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate or None,
            "start_resolution": self.start_resolution,
            "end_resolution": self.end_resolution,
        }

    def get_config(self):
        config = self._arguments()
        for name in ("batch_size", "learning_rate"):  # JSON's keys are strings
            config[name] = [*(config[name] or {}).items()]
        return config

    @classmethod
    def from_config(cls, config):
        tables = {
            name: dict(map(tuple, config[name])) or None
            for name in ("batch_size", "learning_rate")
        }
        return cls(**{**config, **tables})


def check_resolution(value, argument):
    """Checks a resolution: 4, 8, 16, 32, ...

    Args:
        value: The value to check.
        argument: String, the name of the argument in error messages.

    Returns:
        `value` as a Python integer.

    Raises:
        ValueError: If it is no integer, or not 4 times a power of 2; the
            message names the two nearest.
    """
    value = inputs.check_positive_integer(value, argument)
    if value < 4 or value & (value - 1):
        below = max(4, 1 << (value.bit_length() - 1))
        above = 2 * below if value > 4 else 8
        raise ValueError(
            f"`{argument}` must be 4 times a power of 2, got {value}. The "
            f"nearest are {below} and {above}."
        )
    return value


def _whole(value, argument):
    number = inputs.check_number(value, argument, minimum=0)
    if number != int(number):
        raise ValueError(
            f"`{argument}` counts images, so it must be whole, got {value!r}. "
            "Pass an integer."
        )
    return int(number)


def _positive(value, argument):
    return inputs.check_number(value, argument, minimum=0, exclusive=True)


def by_resolution(values, argument, check):
    """Checks a number, or numbers by resolution.

    Args:
        values: The number, which is for all resolutions, or a dictionary.
        argument: String, the name of the argument in error messages.
        check: Function of a number and its name, which returns it or raises.

    Returns:
        `{resolution: value}`, the smallest resolution first.

    Raises:
        ValueError: If it is neither, or a resolution or number is refused.
    """
    if isinstance(values, numbers.Number):
        values = {4: values}
    if not isinstance(values, dict):
        raise ValueError(
            f"`{argument}` must be a number or a dictionary by resolution, got "
            f"{str(values)[:100]!r}. Pass for example `{argument}={{4: 16, 64: 8}}`."
        )
    checked = {
        check_resolution(resolution, f"{argument}: a key"): check(
            value, f"{argument}[{resolution}]"
        )
        for resolution, value in values.items()
    }
    return dict(sorted(checked.items()))


def entry_at(table, resolution):
    """The entry of a resolution, or of the next one below that has one."""
    below = [known for known in table if known <= resolution]
    return table[max(below)] if below else None
