"""A model at work, and what it is compared with.

`from helpers.denoise import Denoiser` is the way in; see `stream`.
"""


def __getattr__(name: str):
    if name not in ("Denoiser", "Stream"):
        raise AttributeError(name)
    from helpers.denoise import stream  # not with the wing, which the baselines share

    return getattr(stream, name)
