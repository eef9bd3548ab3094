"""Discriminators: networks that learn what clean speech sounds like, to teach a denoiser.

A denoiser that is asked for the least error says nothing where it cannot know, so what comes back
under loud noise is too weak. A discriminator asks another question: could this be speech? Both are
trained by turns (I. Goodfellow et al., "Generative adversarial nets", NIPS 2014), here with the
hinge loss and weights of bounded gain (T. Miyato et al., "Spectral normalization for generative
adversarial networks", ICLR 2018), on pictures at several resolutions (K. Kumar et al., "MelGAN",
NeurIPS 2019, whose feature matching is used too). What is shipped is the denoiser alone: it costs
no more than before. Waveforms are float32 `(batch, samples)` at 16 kHz. Taught in `08_adversarial`.
"""

import numpy as np

from helpers.audio import SAMPLE_RATE
from helpers.backend import keras, layers, ops, tf
from helpers.models.blocks import WaveformWrapper, register
from helpers.models.losses import NOISE_ONLY_DB, TINY, spectrum

RESOLUTIONS = ((256, 128), (1024, 512))  # window and hop of each judge, samples
FLOOR_DB = -40.0  # re the talker's level: fainter than that is not looked at
LOUD_DB = -15.0  # the same, where only what is loud shall count
FILTERS = (16, 24, 32)
LEVEL_BAND = (4_000.0, 7_000.0)  # Hz, where the level is looked at
CURVE = ("own", "adversarial", "matching", "judge", "real", "fake", "level")  # of a training


# --- what a judge sees --------------------------------------------------------------------------


def unit_gain(clean):
    """What brings clean speech to a level of one, `(batch, 1)`; silence as if at NOISE_ONLY_DB."""
    power = ops.mean(clean**2, axis=-1, keepdims=True)
    return ops.rsqrt(ops.where(power > TINY**2, power, 10 ** (NOISE_ONLY_DB / 10)))


def power(samples, win_length: int, hop_length: int):
    """Power of each bin of an STFT, `(batch, frames, win_length // 2 + 1)`."""
    return ops.sum(ops.view_as_real(spectrum(samples, win_length, hop_length)) ** 2, axis=-1)


def picture(clean, samples, win_length: int, hop_length: int, floor_db: float = FLOOR_DB):
    """What a judge sees: `(batch, frames, win_length // 4, 2)`, 0 at the floor and below, nepers.

    The first channel is the band from 4 to 8 kHz of `samples`, which may be true or made up. The
    second is the band below of the *clean* clip, the same in both cases, so that the question is
    not "is this an /s/?" but "is this the /s/ that belongs here?" (a conditional discriminator:
    M. Mirza and S. Osindero, 2014). Both signals are scaled by the clean one's level.
    """
    gain, half = unit_gain(clean), win_length // 4
    floor = 10 ** (floor_db / 10) * win_length / 2
    upper, lower = (
        ops.log1p(power(gain * x, win_length, hop_length) / floor) for x in (samples, clean)
    )
    return ops.stack([upper[:, :, half + 1 :], lower[:, :, 1 : half + 1]], axis=-1)


def build_judge(n_bins: int, filters=FILTERS) -> keras.Model:
    """A picture `(batch, frames, n_bins, 2)` to a score for each patch, and the features before.

    Each convolution's weights are held to a gain of one (spectral normalisation), so that the
    judge cannot shout however sure it is. It sees 9 frames; the last output but the features has
    one channel.
    """
    image = keras.Input((None, n_bins, 2), name="picture")
    x, features = image, []
    for i, n in enumerate(filters, start=1):
        convolve = layers.Conv2D(n, (3, 5), strides=(1, 2), padding="same", name=f"convolve_{i}")
        x = layers.LeakyReLU(0.2)(layers.SpectralNormalization(convolve)(x))
        features.append(x)
    score = layers.SpectralNormalization(layers.Conv2D(1, 3, padding="same", name="score"))(x)
    return keras.Model(image, [score, *features], name=f"judge_{n_bins}")


# --- losses -------------------------------------------------------------------------------------


def judge_loss(real, fake):
    """Hinge: true scores want to be above 1, made-up ones below -1; beyond that nothing is won."""
    return ops.mean(ops.relu(1 - real)) + ops.mean(ops.relu(1 + fake))


def fooling_loss(fake):
    """What the denoiser adds to its loss: the higher the judge scores its output, the better."""
    return -ops.mean(fake)


def matching_loss(real: list, fake: list):
    """Feature matching: relative distance of what the judge's layers see in both, mean of layers.

    It pulls towards this clip, where `fooling_loss` is content with any speech.
    """
    pairs = zip(real, fake, strict=True)
    parts = [ops.mean(ops.abs(x - y)) / (ops.mean(ops.abs(x)) + TINY) for x, y in pairs]
    return sum(parts) / len(parts)


def log_spectrum_loss(clean, samples, floor_db: float = FLOOR_DB):
    """Mean distance of the pictures of two clips, nepers: what a judge sees, compared directly.

    So without a judge it asks for the level, too (the log STFT magnitude loss of R. Yamamoto et
    al., "Parallel WaveGAN", ICASSP 2020, here of the band from 4 to 8 kHz).
    """
    pairs = (
        [picture(clean, x, *resolution, floor_db)[..., 0] for x in (clean, samples)]
        for resolution in RESOLUTIONS
    )
    return mean([ops.mean(ops.abs(true - made)) for true, made in pairs])


def loud_spectrum_loss(clean, samples):
    """`log_spectrum_loss` of what is louder than LOUD_DB."""
    return log_spectrum_loss(clean, samples, LOUD_DB)


# --- training by turns --------------------------------------------------------------------------


@register
class AdversarialTrainer(keras.Model):
    """A denoiser and its judges, for `keras.Model.fit` on batches `(noisy, clean)`.

    Each step: the judges learn to tell clean speech from the output, then the denoiser learns from
    its own loss + `weight` x ramp x (`fooling_loss` + `matching` x `matching_loss`), means over the
    judges. The ramp rises in `ramp` steps, while the judges learn what to look for. Weight 0 has
    no judges: the control, the same steps on the same batches.
    """

    def __init__(self, denoiser: WaveformWrapper, weight: float, matching=1.0, ramp=100, **kwargs):
        super().__init__(**kwargs)
        self.denoiser, self.weight, self.matching, self.ramp = denoiser, weight, matching, ramp
        self.judges = [build_judge(win // 4) for win, _ in RESOLUTIONS] if weight else []

    def build(self, shape):
        """`shape`: `(batch, samples)`."""
        self.denoiser.build(shape)
        self.built = True

    def compile(self, optimizer, judge_optimizer, loss):
        """`loss` is the denoiser's own. Optimisers are built now, so that a stop can be resumed."""
        super().compile(optimizer=optimizer)
        self.own_loss, self.judge_optimizer = loss, judge_optimizer
        self.optimizer.build(self.denoiser.trainable_variables)
        self.judge_optimizer.build(self.judge_variables)

    @property
    def judge_variables(self) -> list:
        """What the judges learn."""
        return [one for judge in self.judges for one in judge.trainable_variables]

    def call(self, noisy):
        return self.denoiser(noisy)

    def judge(self, clean, samples, training=False) -> list:
        """For each judge its scores, and its features."""
        pictures = (picture(clean, samples, *resolution) for resolution in RESOLUTIONS)
        pairs = zip(self.judges, pictures, strict=False)
        return [judge(image, training=training) for judge, image in pairs]

    def train_step(self, batch):
        noisy, clean = batch
        log = dict.fromkeys(CURVE, ops.zeros([]))
        with tf.GradientTape() as tape:
            denoised = self.denoiser(noisy, training=True)
            loss = log["own"] = self.own_loss(clean, denoised)
            if self.judges:
                with tape.stop_recording():
                    log |= self.teach_judges(clean, denoised)
                    true = self.judge(clean, clean)
                fooled = self.fooled(true, self.judge(clean, denoised))
                log |= fooled
                taught = ops.minimum(ops.cast(self.optimizer.iterations, "float32") / self.ramp, 1)
                judged = fooled["adversarial"] + self.matching * fooled["matching"]
                loss += self.weight * taught * judged
        variables = self.denoiser.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return log | {"level": high_level(clean, noisy, denoised)}

    def fooled(self, true: list, made: list) -> dict:
        """How the denoiser fares with the judges, given what they say of both."""
        matching = [matching_loss(t[1:], m[1:]) for t, m in zip(true, made, strict=True)]
        fooling = [fooling_loss(m[0]) for m in made]
        return {"adversarial": mean(fooling), "matching": mean(matching)}

    def teach_judges(self, clean, denoised) -> dict:
        """One step of the judges, which see both kinds in one batch."""
        n, twice = ops.shape(clean)[0], ops.concatenate([clean, clean])
        with tf.GradientTape() as tape:
            judged = self.judge(twice, ops.concatenate([clean, denoised]), training=True)
            scores = [one[0] for one in judged]
            loss = mean([judge_loss(score[:n], score[n:]) for score in scores])
        variables = self.judge_variables
        self.judge_optimizer.apply(tape.gradient(loss, variables), variables)
        real = mean([ops.mean(score[:n]) for score in scores])
        fake = mean([ops.mean(score[n:]) for score in scores])
        return {"judge": loss, "real": real, "fake": fake}


def mean(values: list):
    """Mean of a list of numbers."""
    return sum(values) / len(values)


def high_level(clean, noisy, denoised):
    """Level at 4-7 kHz against clean, dB, of a batch's clips with more noise than speech there.

    Every talker counts as if equally loud. 0 where a batch has no such clip.
    """
    band = slice(*(round(f * 512 / SAMPLE_RATE) for f in LEVEL_BAND))
    waves = (clean, noisy - clean, denoised)
    true, noise, made = (
        ops.sum(power(unit_gain(clean) * x, 512, 256)[..., band], axis=(1, 2)) for x in waves
    )
    loud = ops.cast((noise > true) & (true > TINY), "float32")
    return 10 * ops.log10((ops.sum(loud * made) + TINY) / (ops.sum(loud * true) + TINY))


# --- a judge that learns a metric ---------------------------------------------------------------


def build_metric_judge(filters=(8, 16, 16, 16)) -> keras.Model:
    """Two pictures `(batch, frames, 256, 2)`, a clip and the clean one, to a score, `(batch,)`.

    0 is the worst that the metric says and 1 the best. Convolutions, a mean over time and
    frequency, two dense layers: MetricGAN's discriminator (S.-W. Fu et al., ICML 2019), with fewer
    channels and strides.
    """
    images = keras.Input((None, 256, 2), name="pictures")
    x = images
    for i, n in enumerate(filters, start=1):
        convolve = layers.Conv2D(n, 5, strides=2, padding="same", name=f"convolve_{i}")
        x = layers.LeakyReLU(0.3)(layers.SpectralNormalization(convolve)(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.LeakyReLU(0.3)(layers.Dense(32, name="dense")(x))
    score = layers.Dense(1, name="score")(x)
    return keras.Model(images, ops.squeeze(score, -1), name="metric_judge")


def two_pictures(clean, samples):
    """What a metric's judge sees, `(batch, frames, 256, 2)`: the clip, and the clean one."""
    gain, floor = unit_gain(clean), 10 ** (FLOOR_DB / 10) * 256
    images = [ops.log1p(power(gain * x, 512, 256)[:, :, 1:] / floor) for x in (samples, clean)]
    return ops.stack(images, axis=-1)


class Replay:
    """Clips with their scores, kept to be shown again: else a judge forgets what was once bad.

    `quality`: (clean, samples) -> a score of 0 to 1 of one clip, float32 `(samples,)` each. Clips
    of which it says nothing, NaN, are left out.
    """

    def __init__(self, quality, seed: int = 0):
        self.quality, self.kept = quality, []
        self.rng = np.random.default_rng(seed)

    def __call__(self, clean: np.ndarray, samples: np.ndarray) -> tuple:
        """The batch `(clean, samples, scores)` and, behind it, as many that were shown before."""
        scored = [(*pair, self.quality(*pair)) for pair in zip(clean, samples, strict=True)]
        new = [one for one in scored if not np.isnan(one[-1])]
        self.kept += new
        old = self.rng.integers(len(self.kept), size=len(new))
        shown = new + [self.kept[i] for i in old]
        return tuple(np.float32(part) for part in zip(*shown, strict=True))


@register
class MetricTrainer(keras.Model):
    """A denoiser and a judge that learns what a metric would say (S.-W. Fu et al., "MetricGAN+",
    Interspeech 2021), for `keras.Model.fit` on batches `(noisy, clean)`.

    Each step: the metric scores the noisy and the denoised clips; the judge learns these scores,
    some of before (`Replay`), and that clean speech has 1; then the denoiser learns to be given 1,
    beside `own_weight` times its own loss. The metric itself has no gradient; the judge's is only
    as good as its guess.
    """

    def __init__(
        self, denoiser: WaveformWrapper, replay: Replay, own_weight: float = 1.0, **kwargs
    ):
        super().__init__(**kwargs)
        self.denoiser, self.replay, self.own_weight = denoiser, replay, own_weight
        self.judge, self.teaches = build_metric_judge(), True

    def compile(self, optimizer, judge_optimizer, loss):
        """`loss` is the denoiser's own."""
        super().compile(optimizer=optimizer)
        self.own_loss, self.judge_optimizer = loss, judge_optimizer

    def call(self, noisy):
        return self.denoiser(noisy)

    def guess(self, clean, samples, training=False):
        """What the judge says of clips, `(batch,)`."""
        return self.judge(two_pictures(clean, samples), training=training)

    def train_step(self, batch):
        noisy, clean = batch
        with tf.GradientTape() as tape:
            denoised = self.denoiser(noisy, training=True)
            with tape.stop_recording():
                error = self.teach_judge(clean, noisy, denoised) if self.teaches else ops.zeros([])
            guessed, own = self.guess(clean, denoised), self.own_loss(clean, denoised)
            loss = ops.mean((guessed - 1) ** 2) + self.own_weight * own
        variables = self.denoiser.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"own": own, "judge": error, "guessed": ops.mean(guessed)}

    def teach_judge(self, clean, noisy, denoised):
        """One step of the judge; gives its mean squared error."""
        twice, both = ops.concatenate([clean, clean]), ops.concatenate([noisy, denoised])
        true, samples, scores = tf.numpy_function(self.replay, [twice, both], [tf.float32] * 3)
        for waves in (true, samples):
            waves.set_shape([None, clean.shape[1]])
        scores.set_shape([None])
        true, samples = ops.concatenate([true, clean]), ops.concatenate([samples, clean])
        scores = ops.concatenate([scores, ops.ones_like(clean[:, 0])])
        with tf.GradientTape() as tape:
            error = ops.mean((self.guess(true, samples, training=True) - scores) ** 2)
        variables = self.judge.trainable_variables
        self.judge_optimizer.apply(tape.gradient(error, variables), variables)
        return error
