"""Discriminators: networks that learn what clean speech sounds like, to teach a denoiser.

A denoiser that is asked for the least error says nothing where it cannot know, so what comes back
under loud noise is too weak. A discriminator asks another question: could this be speech? Both are
trained by turns (I. Goodfellow et al., "Generative adversarial nets", NIPS 2014), here with the
hinge loss and weights of bounded gain (T. Miyato et al., "Spectral normalization for generative
adversarial networks", ICLR 2018), on pictures at several resolutions (K. Kumar et al., "MelGAN",
NeurIPS 2019, whose feature matching is used too). What is shipped is the denoiser alone: it costs
no more than before. Waveforms are float32 `(batch, samples)` at 16 kHz. Taught in `08_adversarial`.
"""

from helpers.audio import SAMPLE_RATE
from helpers.backend import keras, layers, ops, tf
from helpers.models.blocks import WaveformWrapper, register
from helpers.models.losses import NOISE_ONLY_DB, TINY, spectrum

RESOLUTIONS = ((256, 128), (1024, 512))  # window and hop of each judge, samples
FLOOR_DB = -40.0  # re the talker's level: fainter than that is not looked at
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


def picture(clean, samples, win_length: int, hop_length: int):
    """What a judge sees: `(batch, frames, win_length // 4, 2)`, 0 at FLOOR_DB and below, nepers.

    The first channel is the band from 4 to 8 kHz of `samples`, which may be true or made up. The
    second is the band below of the *clean* clip, the same in both cases, so that the question is
    not "is this an /s/?" but "is this the /s/ that belongs here?" (a conditional discriminator:
    M. Mirza and S. Osindero, 2014). Both signals are scaled by the clean one's level.
    """
    gain, half = unit_gain(clean), win_length // 4
    floor = 10 ** (FLOOR_DB / 10) * win_length / 2
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
