"""Learning from noisy clips alone: a teacher takes them apart, and what it found is mixed anew.

RemixIT (E. Tzinis et al., "RemixIT: continual self-training of speech enhancement models via
bootstrapped remixing", IEEE JSTSP 16(6), 2022): a trained denoiser, the teacher, splits noisy clips
into its guess of the speech and the rest, the noise; each speech gets the noise of another clip,
and a student learns to find the teacher's speech in that. The teacher is a moving average of the
students so far. Taught in `07_without_clean_speech`.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from helpers import audio
from helpers.backend import keras, ops, tf
from helpers.models.blocks import WaveformWrapper, hop_length, overlap_add
from helpers.models.losses import DenoisingLoss
from helpers.models.training import WarmRestarts

PAUSE_FRAME, PAUSE_HOP = 1024, 512  # samples: 64 ms and 32 ms
PAUSE_SHARE = 0.25  # of the frames of a clip: those in which the teacher hears the least speech
SHIPPED_LOSS = {"linear_below": 0.2, "level_weight": 0.015}  # of the shipped model's last training
TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What the batches of a student are made of.

    `supervised`: the share of a batch that is clean speech with known noise. The rest is noisy
    clips that the teacher took apart: its noise on its own speech, mixed anew (`speech` is
    "teacher"), or on clean speech ("clean"). `momentum`: of the teacher in its mean with the
    student after each step; 1 leaves it as it was. `filtered`: take the noise of pauses alone.
    """

    supervised: float = 0.5
    speech: str = "teacher"
    momentum: float = 0.99
    filtered: bool = True


class Student(WaveformWrapper):
    """A model in training by a recipe; its batches are `((noisy, clean), found)`.

    All float32 `(batch, samples)`; `found` are the noisy clips without a clean version. Known
    pairs beyond the recipe's share lend their speech, or are left out. Starts as its teacher is.
    """

    def __init__(self, frame_model: keras.Model, recipe: Recipe, **kwargs):
        hop = hop_length(frame_model)
        super().__init__(frame_model, hop, **kwargs)
        self.recipe = recipe
        self.teacher = WaveformWrapper(copy_of(frame_model), hop)
        self.teacher.trainable = False

    def build(self, input_shape):
        self.teacher.build(input_shape)
        super().build(input_shape)

    def train_step(self, data):
        known, found = data
        logs = super().train_step(self.mixed(known, found))
        follow(self.teacher, self, self.recipe.momentum)
        return logs

    def mixed(self, known, found) -> tuple:
        """The batch to learn from, `(input, target)`: known pairs, then those made of `found`."""
        n = round(self.recipe.supervised * known[0].shape[0])
        speech = self.teacher(found)
        noise = found - speech
        if self.recipe.filtered:
            noise = of_pauses(noise, speech)
        if self.recipe.speech == "clean":
            made = on_clean(noise[n:], *(part[n:] for part in known))
        else:
            made = remixed(speech[n:], noise[n:])
        return tuple(
            ops.concatenate([one[:n], other]) for one, other in zip(known, made, strict=True)
        )


def compile_model(
    model: WaveformWrapper, rate: float, steps: int, loss: DenoisingLoss, shape: tuple[int, int]
) -> None:
    """Make a model ready to train: Adam, with a rate that rises and falls once in so many steps.

    `shape`: of a batch, `(batch, samples)`.
    """
    rate = WarmRestarts(rate, [steps])
    model.compile(keras.optimizers.Adam(rate, clipnorm=3.0), loss)
    model.build(shape)
    model.optimizer.build(model.trainable_variables)


def begin(model: WaveformWrapper, start: list[np.ndarray]) -> None:
    """Set a compiled model, and its teacher, to the weights of a model of frames, and forget all
    that its optimiser has done.
    """
    for one in (model, getattr(model, "teacher", model)):
        one.frame_model.set_weights(start)
    for variable in model.optimizer.variables:
        variable.assign(np.zeros(variable.shape))


def copy_of(frame_model: keras.Model) -> keras.Model:
    """Another model of frames with the same weights."""
    twin = keras.models.clone_model(frame_model)
    twin.set_weights(frame_model.get_weights())
    return twin


# --- the recipe's steps -------------------------------------------------------------------------


def remixed(speech, noise) -> tuple:
    """Each speech with the noise of the clip before it, and that speech: `(input, target)`.

    The clips of a batch are drawn at random, so to turn them by one is to permute them.
    """
    return speech + ops.roll(noise, 1, axis=0), speech


def on_clean(noise, noisy, clean) -> tuple:
    """Clean speech with this noise instead of the one that it has, as loud: `(input, target)`."""
    power = ops.mean((noisy - clean) ** 2, axis=-1, keepdims=True)
    own = ops.mean(noise**2, axis=-1, keepdims=True)
    return clean + noise * ops.sqrt(power / (own + TINY)), clean


def of_pauses(noise, speech):
    """The noise `(batch, samples)` of the frames with the least speech, repeated to fill the clip.

    Speech that the teacher took for noise would teach the student to delete speech. It stands
    where speech is; so only the noise between is taken, cross-faded where it does not follow on.
    """
    frames = ops.extract_sequences(noise, PAUSE_FRAME, PAUSE_HOP)
    heard = ops.extract_sequences(speech, PAUSE_FRAME, PAUSE_HOP)
    n_frames = heard.shape[1]
    n_quiet = max(1, round(PAUSE_SHARE * n_frames))
    quiet = ops.sort(ops.argsort(ops.mean(heard**2, axis=-1), axis=-1)[:, :n_quiet], axis=-1)
    order = ops.take(quiet, np.arange(n_frames) % n_quiet, axis=1)
    picked = ops.take_along_axis(frames, order[..., None], axis=1)
    window = ops.convert_to_tensor(audio.hann(PAUSE_FRAME), noise.dtype)
    filled = overlap_add(picked * window, PAUSE_HOP)
    return ops.pad(filled, [[0, 0], [0, noise.shape[1] - filled.shape[1]]])


def noise_of(model: WaveformWrapper, found: np.ndarray) -> np.ndarray:
    """Noise from the pauses of noisy clips, as a model hears them, float32 `(batch, samples)`.

    Nearly free of speech, so that with clean speech it makes pairs to score on in this noise.
    """
    speech = model.predict_on_batch(found)
    return ops.convert_to_numpy(of_pauses(found - speech, speech))


def follow(teacher: keras.Model, student: WaveformWrapper, momentum: float) -> None:
    """Move the teacher's weights towards the student's; 1 leaves them."""
    if momentum < 1:
        mine = student.frame_model.weights
        for old, new in zip(teacher.frame_model.weights, mine, strict=True):
            old.assign(momentum * old + (1 - momentum) * new)


# --- the noisy clips ----------------------------------------------------------------------------


def cuts(pool, shape: tuple[int, int], seed: int, step: int, share=(0.0, 1.0)) -> np.ndarray:
    """The noisy clips of a step, float32 of this shape, `(clips, samples)`.

    `pool`: noisy sounds end to end, int16 `(samples,)`, an array or a `pool.Pool`; `share`: from
    where to where it is cut.
    """
    n, n_samples = shape
    first, end = (int(part * len(pool)) for part in share)
    starts = np.random.default_rng([seed, step]).integers(first, end - n_samples + 1, size=n)
    return np.stack([pool[i : i + n_samples] for i in starts]).astype(np.float32) / 32768


def with_found(known, pool, seed: int, first_step: int = 0, share=(0.0, 1.0)):
    """Batches `((noisy, clean), found)` for a Student from those of known pairs, a tf.data.Dataset.

    `pool`, `share`: as of `cuts`; `first_step`: that of the first batch.
    """
    shape = tuple(known.element_spec[0].shape)

    def found() -> Iterator[np.ndarray]:
        for step in itertools.count(first_step):
            yield cuts(pool, shape, seed, step, share)

    spec = tf.TensorSpec(shape, tf.float32)
    clips = tf.data.Dataset.from_generator(found, output_signature=spec)
    return tf.data.Dataset.zip(known, clips).prefetch(2)
