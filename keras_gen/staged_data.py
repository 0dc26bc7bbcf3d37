"""Training data that its owner stores in several resolutions."""


class StagedStream:
    """Batches of one dataset after another, a dataset for each resolution.

    The batches of a resolution are those of its dataset, over and over, from
    the first one on. Which one comes next depends on nothing but how many came
    before, so that training can go on from there in another process.

    Args:
        make_dataset: Function `(resolution, batch_size)` that gives a
            `tf.data.Dataset`.
        check: Function `(dataset, resolution)` that raises if the model
            cannot be trained on it.
        distribute: Function that hands a dataset to the replicas.
    """

    def __init__(self, make_dataset, check, distribute):
        self.make_dataset = make_dataset
        self.check = check
        self.distribute = distribute
        self._place = None  # resolution, batch size and number of what is next
        self._unopened = {}

    def dataset(self, resolution, batch_size):
        """The checked dataset of a resolution that is opened next."""
        key = resolution, batch_size
        if key not in self._unopened:
            dataset = self.make_dataset(resolution, batch_size)
            self.check(dataset, resolution)
            self._unopened = {key: dataset}
        return self._unopened[key]

    def batch(self, resolution, batch_size, num_before):
        """The next batch.

        Args:
            resolution: Integer, pixels of the shorter side.
            batch_size: Integer, images in a batch.
            num_before: Integer, batches of this resolution that came before.

        Returns:
            What the dataset yields: images, or images and labels.
        """
        place = resolution, batch_size, num_before
        if place != self._place:
            self._iterator = iter(self._opened(*place))
        self._place = resolution, batch_size, num_before + 1
        return next(self._iterator)

    def _opened(self, resolution, batch_size, num_before):
        dataset = self.dataset(resolution, batch_size)
        self._unopened = {}  # the shuffle of one that was open has gone on
        length = int(dataset.cardinality())
        if length > 0:
            num_passes, num_before = divmod(num_before, length)
            for _ in range(num_passes):  # a seeded shuffle counts its starts
                next(iter(dataset))
        return self.distribute(dataset.repeat().skip(num_before))
