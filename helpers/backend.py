"""TensorFlow and Keras, imported without what TensorFlow's C++ parts print about missing GPUs.

Every module and notebook that needs them imports them from here. Those lines are written before
TF_CPP_MIN_LOG_LEVEL is heeded, so standard error is closed while they come; an exception still
shows. With KERAS_BACKEND=torch in the environment Keras runs on PyTorch and `tf` is None: enough
for `helpers.models.training` on a GPU for which there is PyTorch but no TensorFlow, no more.
"""

import contextlib
import os


@contextlib.contextmanager
def _no_stderr():
    keep, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(keep, 2)
        os.close(keep)
        os.close(nowhere)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with _no_stderr():
    tf = None
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import tensorflow as tf

        tf.constant(0.0)  # the devices are looked for now
    import keras
    from keras import layers, ops

if tf:
    tf.get_logger().setLevel("ERROR")  # its warnings of retracing: clips differ in length, as meant
__all__ = ["keras", "layers", "ops", "tf"]
