"""Export of the networks that are no functional models."""

import keras


class ExportableNetwork(keras.Model):
    """A network of a fixed `input_shape`, which `export` need not be told.

    Keras knows it of functional models alone; others it asks to be called
    first, and built by that call.
    """

    def export(
        self,
        filepath,
        format="tf_saved_model",
        verbose=None,
        input_signature=None,
        **kwargs,
    ):
        """As `keras.Model.export`, but for the call before it."""
        if input_signature is None:
            shapes = self.input_shape
            several = isinstance(shapes, list)
            specs = [
                keras.InputSpec(shape=shape, dtype="float32")
                for shape in (shapes if several else [shapes])
            ]
            input_signature = [specs] if several else specs
        return super().export(
            filepath,
            format,
            verbose=verbose,
            input_signature=input_signature,
            **kwargs,
        )
