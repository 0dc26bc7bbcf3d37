import wave

import numpy as np
import pytest

from keras_gen import audio


@pytest.mark.parametrize("levels", [2, 3, 11, 16, 255, 256, 1000])
def test_a_level_that_is_decoded_and_encoded_stays(levels):
    every = np.arange(levels)
    decoded = audio.mu_law_decode(every, levels)
    assert decoded.dtype == "float32"
    np.testing.assert_array_equal(audio.mu_law_encode(decoded, levels), every)
    np.testing.assert_allclose(decoded, -decoded[::-1], atol=1e-6)
    assert np.all(np.diff(decoded) > 0)
    np.testing.assert_allclose(decoded[:: levels - 1], [-1, 1], rtol=1e-6)
    assert np.max(np.abs(decoded)) <= 1


def test_encoding_is_the_formula_of_the_paper():
    x = np.linspace(-1, 1, 4001)
    f = np.sign(x) * np.log(1 + 255 * np.abs(x)) / np.log(256)
    place = (f + 1) / 2 * 255
    level = audio.mu_law_encode(x).numpy()
    assert level.dtype == "int32"
    assert np.max(np.abs(level - place)) <= 0.5 + 1e-4
    np.testing.assert_array_equal(
        audio.mu_law_encode([-1.0, 0.01, 1.0]), [0, 157, 255]
    )


def test_what_is_beyond_the_range_takes_the_outermost_levels():
    np.testing.assert_array_equal(audio.mu_law_encode([-7.0, 7.0]), [0, 255])


def test_the_error_of_rounding_is_that_of_the_amplitude():
    x = np.random.default_rng(0).uniform(-1, 1, 10000).astype("float32")
    error = np.abs(audio.mu_law_decode(audio.mu_law_encode(x)) - x)
    # Half the distance of two levels at x: log(256) / 255 * (1 / 255 + |x|).
    assert np.all(error <= 1.02 * np.log(256) / 255 * (1 / 255 + np.abs(x)))


def test_rounding_keeps_nan():
    rounded = audio.mu_law_round([0.5, np.nan]).numpy()
    np.testing.assert_array_equal(np.isnan(rounded), [False, True])


@pytest.mark.parametrize("levels", [1, 0, 2.5, "256", None])
def test_bad_levels_are_refused(levels):
    for function in (audio.mu_law_encode, audio.mu_law_decode):
        with pytest.raises(ValueError, match="`levels`"):
            function(np.zeros(2), levels)


def test_a_written_file_holds_the_waveform(tmp_path):
    path = tmp_path / "new" / "x.wav"
    x = np.array([0.0, 0.5, -1.0, 1.0, 3.0], "float32")
    audio.write_wav(path, np.zeros(9), 8000)
    audio.write_wav(path, x, 16000)
    with wave.open(str(path)) as file:
        assert file.getparams()[:4] == (1, 2, 16000, 5)
        pcm = np.frombuffer(file.readframes(5), "<i2")
    np.testing.assert_array_equal(pcm, [0, 16384, -32767, 32767, 32767])


@pytest.mark.parametrize(
    "x, rate, word",
    [
        (np.zeros((2, 8)), 8000, "shape"),
        (np.zeros(8, "int16"), 8000, "int16"),
        (np.array([0.0, np.nan]), 8000, "finite"),
        (np.zeros(8), 0, "sample_rate"),
    ],
)
def test_what_is_no_waveform_is_not_written(x, rate, word, tmp_path):
    with pytest.raises(ValueError, match=word):
        audio.write_wav(tmp_path / "x.wav", x, rate)
    assert not list(tmp_path.iterdir())
