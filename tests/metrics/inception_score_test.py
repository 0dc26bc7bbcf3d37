import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from keras_gen.metrics.inception_score import InceptionScore


def pixels_as_probabilities(num_classes):
    """A classifier that finds its answer written in the image."""
    return keras.Sequential(
        [keras.Input((1, num_classes, 1)), keras.layers.Flatten()]
    )


def as_images(probabilities):
    return np.asarray(probabilities, "float32")[:, None, :, None]


def random_probabilities(batch, num_classes=5, seed=0):
    logits = 2 * np.random.default_rng(seed).normal(size=(batch, num_classes))
    return scipy.special.softmax(logits, axis=1)


def reference(probabilities, splits):
    """exp(H(mean) - mean(H)) in each split."""
    p = probabilities.astype("float32").astype("float64")
    p = p[np.random.default_rng(0).permutation(len(p))]
    return [
        np.exp(
            scipy.special.entr(part.mean(0)).sum()
            - scipy.special.entr(part).sum(1).mean()
        )
        for part in np.array_split(p, splits)
    ]


@pytest.mark.parametrize("splits", [1, 3])
def test_it_is_the_exponential_of_the_mutual_information(splits):
    p = random_probabilities(100)
    metric = InceptionScore(pixels_as_probabilities(5), splits=splits)
    metric.update_state(None, as_images(p))
    scores = reference(p, splits)
    # Softmax outputs of float32 do not sum to 1 exactly.
    assert metric.result() == pytest.approx(np.mean(scores), rel=1e-6)
    assert metric.details() == {
        "inception_score": metric.result(),
        "num_real": 0,
        "num_generated": 100,
        "feature_extractor": metric.feature_extractor_name,
        "standard_deviation": pytest.approx(np.std(scores), rel=1e-4, abs=1e-9),
        "standard_error": pytest.approx(
            np.std(scores) / np.sqrt(splits), rel=1e-4, abs=1e-9
        ),
    }


def test_odd_batches_give_what_all_images_at_once_give():
    x = as_images(random_probabilities(50))
    whole, parts = (InceptionScore(pixels_as_probabilities(5)) for _ in "ab")
    whole.update_state(None, x)
    for start in range(0, 50, 7):
        parts.update_state(x[:3], x[start : start + 7])  # real ones ignored
    assert parts.result() == whole.result()


def test_equal_images_score_one():
    p = np.repeat(random_probabilities(1), 40, axis=0)
    metric = InceptionScore(pixels_as_probabilities(5))
    metric.update_state(None, as_images(p))
    assert metric.result() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 7])
def test_sure_and_balanced_classes_score_their_number(num_classes):
    metric = InceptionScore(pixels_as_probabilities(num_classes), splits=1)
    metric.update_state(None, as_images(np.eye(num_classes)))
    metric.update_state(None, as_images(np.eye(num_classes)))
    assert metric.result() == pytest.approx(num_classes, rel=1e-12)


def test_images_in_turns_of_their_classes_are_scored_as_in_any_order():
    one_hot = np.eye(10)[np.arange(2000) % 10]
    for p in (one_hot, np.repeat(np.eye(10), 200, axis=0)):
        metric = InceptionScore(pixels_as_probabilities(10), splits=10)
        metric.update_state(None, as_images(p))
        assert 9.3 < metric.result() <= 10.0


def test_the_classifier_of_an_extractor_is_used():
    class Features(keras.Model):
        def __init__(self, classifier):
            super().__init__(name="features_7f")
            self.classifier = classifier

    metric = InceptionScore(Features(pixels_as_probabilities(3)), splits=1)
    metric.update_state(None, as_images(np.eye(3)))
    assert metric.result() == pytest.approx(3.0)
    assert metric.score_name == "inception_score[features_7f]"


def test_probabilities_may_be_rounded_as_in_half_precision():
    rounded = np.random.default_rng(0).dirichlet(np.ones(10), 50)
    rounded = tf.cast(tf.cast(rounded, "bfloat16"), "float64").numpy()
    assert np.abs(rounded.sum(axis=1) - 1).max() > 1e-3
    metric = InceptionScore(pixels_as_probabilities(10), splits=1)
    metric.update_state(None, as_images(rounded))
    p = rounded / rounded.sum(axis=1, keepdims=True)
    divergence = np.sum(p * np.log(p / p.mean(axis=0)), axis=1)
    assert metric.result() == pytest.approx(np.exp(divergence.mean()), rel=1e-5)


def test_logits_are_refused():
    metric = InceptionScore(pixels_as_probabilities(3))
    with pytest.raises(ValueError, match=r"`feature_extractor`.*softmax"):
        metric.update_state(None, as_images([[1.0, 1.0, 1.0]]))


def test_arguments_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"`feature_extractor`.*None"):
        InceptionScore(None)
    classifier = pixels_as_probabilities(2)
    with pytest.raises(ValueError, match=r"`splits`.*got 0"):
        InceptionScore(classifier, splits=0)
    with pytest.raises(ValueError, match=r"`max_samples`.*got 0"):
        InceptionScore(classifier, max_samples=0)
    with pytest.raises(ValueError, match=r"`max_samples`.*got 9.*at least 10"):
        InceptionScore(classifier, max_samples=9)


def test_each_split_needs_an_image():
    metric = InceptionScore(pixels_as_probabilities(3))
    metric.update_state(as_images(np.eye(3)), as_images(np.eye(3)))
    with pytest.raises(ValueError, match=r"at least 10 generated.*got 3"):
        metric.result()
