"""Which process of a multi-worker job writes files."""


def is_chief(model):
    """Tells whether this process is the one that may write files.

    Every worker of a `tf.distribute.MultiWorkerMirroredStrategy` runs the
    same callbacks. Files belong to one of them: the task of type "chief" or,
    where there is none, worker 0. Any other strategy has a single process.

    Args:
        model: A `keras.Model`.

    Returns:
        Boolean.

    Example:

    >>> is_chief(model)
    True
    """
    resolver = model.distribute_strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    if "chief" in resolver.cluster_spec().jobs:
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0
