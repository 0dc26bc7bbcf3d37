import keras
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import tensorflow as tf

from keras_gen.metrics.ms_ssim import MultiScaleSSIM

WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def images(batch, *shape, seed=0, shared=0.5):
    """uint8 images of smooth blobs that have a part in common."""
    rng = np.random.default_rng(seed)
    x = (1 - shared) * rng.normal(size=(batch, *shape))
    x = scipy.ndimage.gaussian_filter(
        x + shared * rng.normal(size=shape), (0, 2, 2, 0.5)
    )
    return np.clip(np.rint(128 + 300 * x), 0, 255).astype("uint8")


def score(generated, real=None):
    metric = MultiScaleSSIM()
    metric.update_state(real, generated)
    return metric.result()["ms_ssim"]


# The published recipe in float64, on two-dimensional windows.


def reference_window():
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    return window[None, :, :, None] / window.sum()


def reference_ssim(x, y):
    def mean(values):
        return scipy.signal.fftconvolve(values, reference_window(), "valid")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    xx, yy, xy = mean(x * x), mean(y * y), mean(x * y)
    x, y = mean(x), mean(y)
    contrast = (2 * (xy - x * y) + c2) / (xx - x * x + yy - y * y + c2)
    luminance = (2 * x * y + c1) / (x * x + y * y + c1)
    return [np.mean(v, (1, 2, 3)) for v in (luminance * contrast, contrast)]


def reference(x, num_scales):
    """Mean over pairs `x[0], x[1]`, `x[2], x[3]`, ..."""
    x, y = x[0:-1:2].astype("float64"), x[1::2].astype("float64")
    weights = WEIGHTS[:num_scales] / sum(WEIGHTS[:num_scales])
    product = 1.0
    for i, weight in enumerate(weights):
        ssim, contrast = reference_ssim(x, y)
        part = ssim if i == num_scales - 1 else contrast
        product = product * np.clip(part, 0, None) ** weight
        box = np.full((1, 2, 2, 1), 0.25)
        x, y = (
            scipy.ndimage.convolve(v, box, mode="reflect")[:, ::2, ::2]
            for v in (x, y)
        )
    return np.mean(product)


@pytest.mark.parametrize(
    ("shape", "num_scales"),
    [
        ((176, 180, 1), 5),
        ((175, 180, 1), 4),
        ((64, 64, 3), 3),
        ((32, 32, 3), 2),
        ((28, 28, 1), 2),
        ((23, 25, 2), 2),
        ((11, 30, 4), 1),
    ],
)
def test_it_is_the_published_recipe_with_as_many_scales_as_fit(
    shape, num_scales
):
    x = images(6, *shape)
    metric = MultiScaleSSIM()
    assert metric.num_scales is None
    metric.update_state(None, x)
    assert metric.num_scales == num_scales
    result = metric.result()
    assert list(result) == ["ms_ssim"] and isinstance(result["ms_ssim"], float)
    expected = reference(x, num_scales)
    assert 0.05 < expected < 0.95
    np.testing.assert_allclose(result["ms_ssim"], expected, rtol=1e-5)


def test_flat_and_extreme_images_keep_their_digits():
    rng = np.random.default_rng(0)
    x = np.where(images(8, 32, 32, 1, shared=0) > 150, 255, 0)
    x[:, 20:] = 255  # flat white, where variances are differences of squares
    x[1::2] -= np.minimum(x[1::2], rng.integers(0, 3, x[1::2].shape))
    np.testing.assert_allclose(
        score(x.astype("uint8")), reference(x, 2), rtol=1e-5
    )


def test_one_scale_is_the_ssim_of_tensorflow():
    x = images(8, 16, 16, 1)
    expected = np.maximum(tf.image.ssim(x[::2], x[1::2], 255), 0)
    np.testing.assert_allclose(score(x), np.mean(expected), rtol=1e-4)


def test_five_scales_of_grey_images_are_those_of_tensorflow():
    x = images(4, 176, 176, 1)
    expected = tf.image.ssim_multiscale(x[::2], x[1::2], 255)
    np.testing.assert_allclose(score(x), np.mean(expected), rtol=1e-4)


def test_equal_images_have_1_and_negatives_count_as_0():
    x = images(2, 32, 32, 1)
    np.testing.assert_allclose(score(np.repeat(x[:1], 6, 0)), 1, rtol=1e-6)
    assert score(np.stack([x[0], 255 - x[0]])) == 0.0


def test_more_in_common_is_a_higher_score():
    scores = [score(images(40, 32, 32, 3, shared=s)) for s in (0.1, 0.5, 0.9)]
    assert scores[0] < scores[1] < scores[2]


def test_pairs_are_neighbours_across_batches():
    generated, real = images(31, 24, 24, 1), images(20, 24, 24, 1, seed=1)
    metric = MultiScaleSSIM()
    for begin, end in ((0, 1), (1, 2), (2, 9), (9, 31)):
        metric.update_state(None, generated[begin:end])
    for begin in range(0, 20, 5):
        metric.update_state(real[begin : begin + 5], None)
    result = metric.result()
    # The last generated image has no partner.
    np.testing.assert_allclose(
        result["ms_ssim"], reference(generated[:30], 2), rtol=1e-5
    )
    np.testing.assert_allclose(
        result["ms_ssim_real"], reference(real, 2), rtol=1e-5
    )
    assert list(result) == ["ms_ssim", "ms_ssim_real"]


def test_the_standard_error_is_that_of_the_mean_over_pairs():
    x = images(20, 24, 24, 1)
    metric = MultiScaleSSIM()
    metric.update_state(None, x)
    pairs = [reference(x[i : i + 2], 2) for i in range(0, 20, 2)]
    details = metric.details()
    assert details["ms_ssim_standard_error"] == pytest.approx(
        np.std(pairs) / np.sqrt(10), rel=1e-4
    )
    assert "ms_ssim_real_standard_error" not in details


def test_batches_larger_than_a_step_give_the_same():
    x = images(301, 12, 12, 1)
    np.testing.assert_allclose(score(x), reference(x[:300], 1), rtol=1e-5)


def test_floats_are_the_same_images_and_may_alternate_with_integers():
    x = images(8, 24, 24, 3)
    metric = MultiScaleSSIM()
    metric.update_state(None, x[:3])
    metric.update_state(None, (x[3:] / 255).astype("float32"))
    np.testing.assert_allclose(metric.result()["ms_ssim"], score(x), rtol=1e-5)


def test_reset_forgets_images():
    x = images(5, 24, 24, 1)
    metric = MultiScaleSSIM()
    metric.update_state(x, x)
    metric.reset_state()
    assert metric.num_scales is None
    metric.update_state(None, x[:4])
    assert metric.result() == {"ms_ssim": pytest.approx(score(x[:4]))}


def test_config_makes_the_same_metric():
    metric = MultiScaleSSIM(name="variety")
    config = keras.saving.serialize_keras_object(metric)
    assert keras.saving.deserialize_keras_object(config).name == "variety"


def test_errors_say_what_is_wrong():
    metric = MultiScaleSSIM()
    with pytest.raises(ValueError, match="at least 2 generated images, got 0"):
        metric.result()
    metric.update_state(None, images(1, 16, 16, 1))
    with pytest.raises(ValueError, match="at least 2 generated images, got 1"):
        metric.result()
    with pytest.raises(
        ValueError, match="`real` must be images of at least 11"
    ):
        MultiScaleSSIM().update_state(np.zeros((2, 10, 16, 1), "uint8"), None)
    with pytest.raises(ValueError, match="`generated` must have the shape"):
        metric.update_state(None, images(2, 32, 32, 1))
