"""Files and folders that are replaced whole, or not at all."""

import contextlib
import os
import tempfile


@contextlib.contextmanager
def replacing(path):
    """Gives a path to write to, which replaces `path` when all went well.

    Args:
        path: The file or folder to write, `~` for the home folder; its parents
            are made if absent.

    Yields:
        A path of the same name in a temporary folder beside it. If writing
        fails, or the process is killed, what was at `path` is still there.
        A URL, such as `gs://bucket/model.keras`, is given back itself: there
        Keras and TensorFlow write as they do.

    Example:

    >>> with replacing("run/model.keras") as part:
    ...     model.save(part)
    """
    if "://" in os.fspath(path):
        yield os.fspath(path)
        return
    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    parent, name = os.path.split(path)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".part-") as folder:
        part = os.path.join(folder, name)
        yield part
        if os.path.isdir(path):  # which no rename replaces
            os.rename(path, os.path.join(folder, f"{name}.old"))
        os.replace(part, path)
