"""A model at work, and what it is compared with.

`from helpers.denoise import Denoiser` is the way in; see `stream`.
"""


def __getattr__(name: str):
    if name not in ("Denoiser", "Stream"):
        raise AttributeError(name)
    from helpers.denoise import stream  # TensorFlow starts here, not with the wing

    return getattr(stream, name)
