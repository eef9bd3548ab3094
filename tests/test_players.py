"""`helpers.display.bench` and `listening`: a picture that follows, and one gain."""

import base64
import io
import re

import ipywidgets as widgets
import numpy as np
import pytest
import soundfile as sf
from IPython.display import HTML, Image
from PIL import Image as Picture

from helpers import audio
from helpers.display import bench, listening


def pixels(image: Image) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(image.data)).convert("RGB"), int)


def sounds(html: HTML) -> list[np.ndarray]:
    """The samples of every player of a row."""
    found = re.findall(r"base64,([^\"]+)\"", html.data)
    return [sf.read(io.BytesIO(base64.b64decode(one)))[0] for one in found]


def test_the_picture_shows_the_clip_that_it_is_given_and_nothing_of_the_last(speech):
    show = bench.Picture(len(speech))
    hiss = np.random.default_rng(0).normal(0, 0.1, len(speech))
    first = pixels(show({"a": speech, "b": speech}, (4_000, 8_000)))
    second = pixels(show({"a": speech, "b": hiss}, (4_000, 8_000)))
    middle = first.shape[1] // 2
    assert (first[:, : middle - 20] == second[:, : middle - 20]).all()
    assert (first[:, middle:] != second[:, middle:]).mean() > 0.3
    again = pixels(show({"a": speech, "b": speech}, (4_000, 8_000)))
    assert (again == first).all()
    assert (pixels(show({"a": speech, "b": speech}, (2_000, 8_000))) != first).any()
    with pytest.raises(ValueError, match="shorter"):
        show({"a": speech}, (4_000, 8_000))


def test_sliders_call_the_function_with_their_values_and_show_what_it_gives():
    calls = []

    def function(**values):
        calls.append(values)
        if values["kind"] == "wrong":
            raise ValueError("no such kind")
        return Image(f"{values}".encode(), format="png"), HTML(values["kind"])

    controls = {
        "kind": widgets.Dropdown(options=["white", "pink", "wrong"]),
        "snr_db": widgets.IntSlider(0, -10, 30),
    }
    box = bench.sliders(function, controls)
    picture, sound = box.children[-2:]
    controls["snr_db"].value = 5
    controls["kind"].value = "pink"
    assert calls == [
        {"kind": "white", "snr_db": 0},
        {"kind": "white", "snr_db": 5},
        {"kind": "pink", "snr_db": 5},
    ]
    assert picture.value == b"{'kind': 'pink', 'snr_db': 5}"
    assert sound.value == "pink"
    controls["kind"].value = "wrong"
    assert "no such kind" in sound.value


def test_a_row_has_one_gain_and_a_given_gain_holds_for_every_row(speech):
    quiet, loud = sounds(listening.players({"a": 0.1 * speech, "b": speech}))
    assert audio.level_db(loud) - audio.level_db(quiet) == pytest.approx(20, abs=0.1)
    assert np.abs(loud).max() == pytest.approx(listening.PEAK, abs=1e-3)
    (alone,) = sounds(listening.players({"a": speech}, gain=0.5))
    (beside, cut) = sounds(listening.players({"a": speech, "b": 100 * speech}, gain=0.5))
    np.testing.assert_array_equal(alone, beside)
    np.testing.assert_allclose(alone, 0.5 * speech, atol=1e-4)
    assert np.abs(cut).max() == pytest.approx(1, abs=1e-3)
