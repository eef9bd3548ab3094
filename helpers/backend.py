"""TensorFlow and Keras, imported without what TensorFlow's C++ parts print about missing GPUs.

Every module and notebook that needs them imports them from here: `tf`, `keras`, `layers`, `ops`.
They start when the first of these is asked for. Those lines are written before
TF_CPP_MIN_LOG_LEVEL is heeded, so standard error is closed while they come; an exception still
shows. With KERAS_BACKEND=torch in the environment Keras runs on PyTorch and `tf` is None: enough
for `helpers.models.training` on Linux and a GPU for which there is PyTorch but no TensorFlow, no
more. What a `keras.json` in the user's home says of a backend does not count. Raises BackendError
for one that is not there.
"""

import contextlib
import os


class BackendError(RuntimeError):
    """Keras has not what it needs to run here; the message says what to do."""


@contextlib.contextmanager
def no_stderr():
    """A block in which what C++ code says on standard error is not heard."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        keep = os.dup(2)
    except OSError:  # standard error is closed: there is nothing to be quiet about
        os.close(nowhere)
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(keep, 2)
        os.close(keep)
        os.close(nowhere)


def _start() -> dict:
    """Import all; what is imported, by its name."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever a keras.json of the user says
    try:
        with no_stderr():
            tf = None
            if os.environ["KERAS_BACKEND"] == "tensorflow":
                import tensorflow as tf

                tf.constant(0.0)  # the devices are looked for now
            import keras
            from keras import layers, ops
    # ValueError: of Keras, for a name that it does not know; AttributeError: would look like ours
    except (ImportError, ValueError, AttributeError) as error:
        raise BackendError(
            f"KERAS_BACKEND={os.environ['KERAS_BACKEND']}: not to be had here ({error}); "
            "unset it, or install that package"
        ) from error
    if tf:
        tf.get_logger().setLevel("ERROR")  # its warnings of retracing: clips differ in length
    return {"tf": tf, "keras": keras, "layers": layers, "ops": ops}


def __getattr__(name: str):
    if name not in ("tf", "keras", "layers", "ops"):
        raise AttributeError(name)
    globals().update(_start())
    return globals()[name]
