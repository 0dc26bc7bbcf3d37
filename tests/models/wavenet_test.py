import itertools
import wave

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from keras_gen import audio
from keras_gen.models.wavenet import WaveNet

LENGTH, LEVELS = 20, 8
CONDITIONS = {
    "none": ({}, None),
    "classes": ({"num_classes": 3}, np.array([2, 0, 1, 2, 0])),
    "vectors": (
        {"condition_dim": 2},
        np.random.default_rng(0).random((5, 2), "float32"),
    ),
    "frames": (
        {"condition_dim": 2, "frame_length": 5},
        np.random.default_rng(0).random((5, 4, 2), "float32"),
    ),
}


def wavenet(num_samples=LENGTH, dilations=(1, 3), levels=LEVELS, **options):
    """A WaveNet of weights that are not small."""
    model = WaveNet(
        num_samples,
        4,
        dilations,
        skip_filters=6,
        levels=levels,
        seed=1,
        **options,
    )
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


def sound(count=5, num_samples=LENGTH, seed=0):
    """Waveforms whose values are those of levels."""
    rng = np.random.default_rng(seed)
    level = rng.integers(LEVELS, size=(count, num_samples))
    return audio.mu_law_decode(level, LEVELS).numpy()


def every_waveform(num_samples, levels):
    level = list(itertools.product(range(levels), repeat=num_samples))
    return audio.mu_law_decode(np.array(level), levels)


@pytest.fixture(scope="module", params=list(CONDITIONS))
def variant(request):
    """A model and the conditions of five waveforms."""
    options, condition = CONDITIONS[request.param]
    given = {} if condition is None else {"condition": condition}
    return wavenet(**options), given


@pytest.fixture(scope="module")
def plain():
    return wavenet()


# The likelihood


def test_probabilities_of_all_waveforms_sum_to_one():
    model = wavenet(num_samples=6, levels=4)
    log_prob = model.log_prob(every_waveform(6, 4))
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1, rtol=1e-5)


def test_samples_are_as_frequent_as_their_probability_says():
    model = wavenet(num_samples=3, levels=3)
    x = every_waveform(3, 3)
    expected = np.exp(model.log_prob(x))
    drawn = audio.mu_law_encode(model.sample(4000, seed=0), 3).numpy()
    count = np.bincount(drawn @ [9, 3, 1], minlength=27)
    error = 5 * np.sqrt(expected * (1 - expected) / 4000) + 1e-3
    assert np.all(np.abs(count / 4000 - expected) < error)


def test_log_prob_is_that_of_the_conditionals(variant):
    model, given = variant
    x = sound()
    conditionals = model.conditionals(x, **given)
    assert conditionals.event_shape == (LENGTH,)
    np.testing.assert_allclose(
        model.log_prob(x, **given),
        conditionals.log_prob(audio.mu_law_encode(x, LEVELS)),
        rtol=1e-5,
    )


def test_log_prob_is_of_the_levels(plain):
    x = sound()
    nearby = np.clip(x * 1.01, -1, 1)
    assert np.any(nearby != x)
    np.testing.assert_array_equal(plain.log_prob(x), plain.log_prob(nearby))


def published_log_prob(model, x):
    """The network of the paper, a step at a time, in float64."""
    mu = model.levels - 1
    total = np.zeros(len(x))
    level = np.asarray(audio.mu_law_encode(x, model.levels))
    w, b = (np.array(v, "float64") for v in model.entry.get_weights())
    histories = [[] for _ in model.blocks]
    for t in range(x.shape[1]):
        features = np.zeros((len(x), 2))
        if t:
            f = 2 * level[:, t - 1] / mu - 1
            a = np.sign(f) * ((1 + mu) ** np.abs(f) - 1) / mu
            features = np.stack([f, a], axis=1)
        h, skips = features @ w + b, 0
        for block, history in zip(model.blocks, histories, strict=True):
            (k0, k1), c = block.convolution.get_weights()
            r, s = block.outputs.get_weights()
            history.append(h)
            past = 0 * h
            if t >= block.dilation:
                past = history[t - block.dilation]
            f, g = np.split(past @ k0 + h @ k1 + c, 2, axis=1)
            out = np.tanh(f) / (1 + np.exp(-g)) @ r + s
            h, skips = h + out[:, :4], skips + out[:, 4:]
        for layer in (model.hidden, model.output_layer):
            kernel, bias = layer.get_weights()
            skips = np.maximum(skips, 0) @ kernel + bias
        skips -= skips.max(axis=1, keepdims=True)
        chosen = skips[np.arange(len(x)), level[:, t]]
        total += chosen - np.log(np.exp(skips).sum(axis=1))
    return total


def test_log_prob_is_that_of_the_published_recurrence(plain):
    x = sound()
    np.testing.assert_allclose(
        plain.log_prob(x), published_log_prob(plain, x), rtol=1e-5
    )


def test_a_sample_depends_on_those_of_its_receptive_field_and_no_other():
    model = wavenet(num_samples=12, dilations=(1, 2, 3))
    assert model.receptive_field == 7
    x = tf.constant(sound(1, 12))
    level = audio.mu_law_round(x, LEVELS)
    with tf.GradientTape() as tape:
        tape.watch(level)
        logits = tf.reduce_sum(tf.sin(model._logits(level)[0]), axis=-1)
    depends = tape.jacobian(logits, level)[:, 0].numpy() != 0
    lag = np.arange(12)[:, None] - np.arange(12)
    np.testing.assert_array_equal(depends, (lag >= 1) & (lag <= 7))


def test_call_is_the_mean_given_earlier_samples(variant):
    model, given = variant
    x = sound()
    p = model.conditionals(x, **given).distribution.probs_parameter()
    mean = p @ audio.mu_law_decode(np.arange(LEVELS), LEVELS).numpy()[:, None]
    np.testing.assert_allclose(model(x, **given), mean[..., 0], atol=1e-5)


# Conditions


def test_a_class_that_is_not_given_is_summed_over():
    model = wavenet(num_classes=3)
    x = sound()
    of_classes = np.stack(
        [model.log_prob(x, condition=np.full(5, y)) for y in range(3)], axis=1
    )
    total = scipy.special.logsumexp(of_classes, axis=1)
    np.testing.assert_allclose(model.log_prob(x), total - np.log(3), rtol=1e-5)
    share = np.exp(of_classes - total[:, None])
    np.testing.assert_allclose(model.classify(x), share, rtol=1e-3, atol=1e-6)
    assert model.sample(3, seed=0).shape == (3, LENGTH)
    assert not hasattr(wavenet(), "classify")


def test_a_frame_is_for_its_own_samples():
    options, frames = CONDITIONS["frames"]
    model = wavenet(dilations=(1,), **options)
    x = sound()
    changed = frames.copy()
    changed[:, 2] += 1.0
    one, other = (
        np.asarray(model.conditionals(x, condition=c).distribution.logits)
        for c in (frames, changed)
    )
    differs = np.any(one != other, axis=(0, 2))
    np.testing.assert_array_equal(differs, np.arange(LENGTH) // 5 == 2)


def test_equal_frames_are_a_vector():
    options, vectors = CONDITIONS["vectors"]
    of_vectors = wavenet(**options)
    of_frames = wavenet(frame_length=5, **options)
    frames = np.repeat(vectors[:, None], 4, axis=1)
    np.testing.assert_allclose(
        of_frames.log_prob(sound(), condition=frames),
        of_vectors.log_prob(sound(), condition=vectors),
        rtol=1e-5,
    )


def test_conditions_that_are_missing_or_wrong_are_refused(variant):
    model, given = variant
    x = sound()
    if not given:
        with pytest.raises(ValueError, match="`condition` must be `None`"):
            model.sample(5, condition=np.zeros(5, int))
        return
    for bad in ({"condition": given["condition"][:4]}, {"condition": "a"}):
        with pytest.raises(ValueError, match="`condition`"):
            model.log_prob(x, **bad)
        with pytest.raises(ValueError, match="`condition`"):
            model.sample(5, **bad)
    with pytest.raises(ValueError, match="`condition` must be"):
        model.impute(x, x > 0)
    model.compile()
    for bad in ((x,), (x, given["condition"][:4])):
        with pytest.raises(ValueError, match="y"):
            model.fit(*bad, verbose=0)


# Sampling


@pytest.mark.parametrize("kind", ["none", "frames"])
def test_queues_draw_what_full_passes_draw(kind):
    options, condition = CONDITIONS[kind]
    model, given = wavenet(**options), {"condition": condition}
    cached = model.sample(5, seed=3, **given)
    assert cached.shape == (5, LENGTH) and cached.dtype == "float32"
    np.testing.assert_array_equal(
        cached, model.sample(5, seed=3, cached=False, **given)
    )
    assert np.any(cached != model.sample(5, seed=4, **given))
    assert len(np.unique(cached)) > 3


def test_imputation_keeps_what_is_observed_and_continues_it(plain):
    x = sound() * 0.999
    mask = np.arange(LENGTH) < 12
    draws = plain.impute(x, mask, num_samples=3, seed=0)
    assert draws.shape == (3, 5, LENGTH)
    np.testing.assert_array_equal(draws[:, :, :12], np.stack([x[:, :12]] * 3))
    assert np.any(draws[0] != draws[1])
    # What comes later does not matter, and what comes before does.
    other = np.where(mask, x, 0.1).astype("float32")
    np.testing.assert_array_equal(
        draws, plain.impute(other, mask, num_samples=3, seed=0)
    )
    earlier = plain.impute(-x, mask, num_samples=3, seed=0)
    assert np.any(earlier[:, :, 12:] != draws[:, :, 12:])


def test_continuations_follow_the_exact_conditional():
    model = wavenet(num_samples=4, levels=3)
    x = every_waveform(4, 3)
    observed = audio.mu_law_decode([2, 1, 0, 0], 3).numpy()
    match = np.all(x[:, :2] == observed[:2], axis=1)
    expected = np.exp(model.log_prob(x))[match]
    expected /= expected.sum()
    draws = model.impute(
        observed[None], np.arange(4) < 2, num_samples=4000, seed=0
    )
    drawn = audio.mu_law_encode(draws[:, 0, 2:], 3).numpy()
    share = np.bincount(drawn @ [3, 1], minlength=9) / 4000
    error = 5 * np.sqrt(expected * (1 - expected) / 4000) + 1e-3
    assert np.all(np.abs(share - expected) < error)


def test_an_exported_model_draws_and_scores_as_the_original(tmp_path):
    options, frames = CONDITIONS["frames"]
    model, frames = wavenet(**options), tf.constant(frames)
    model.export(tmp_path / "serving")
    loaded = tf.saved_model.load(tmp_path / "serving")
    drawn = loaded.sample(
        num_samples=tf.constant(5),
        condition=frames,
        seed=tf.constant(5, "int64"),
    )
    np.testing.assert_array_equal(
        drawn, model.sample(5, condition=frames, seed=5)
    )
    np.testing.assert_allclose(
        loaded.log_prob(x=drawn, condition=frames),
        model.log_prob(drawn, condition=frames),
        rtol=1e-5,
    )


# Training


def ar2(count, num_samples, seed):
    x = np.random.default_rng(seed).normal(0, 0.06, (count, num_samples + 50))
    for t in range(2, x.shape[1]):
        x[:, t] += 1.5 * x[:, t - 1] - 0.8 * x[:, t - 2]
    return x[:, 50:].astype("float32")


def test_it_learns_what_the_past_tells():
    model = WaveNet(64, 8, (1,), levels=16, seed=0)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    x, test = ar2(200, 64, 0), ar2(200, 64, 1)
    model.fit(x, batch_size=8, epochs=6, verbose=0)
    level = audio.mu_law_encode(test, 16).numpy()
    share = np.bincount(level.ravel(), minlength=16) / level.size
    marginal = -np.sum(share * np.log2(share + 1e-9))
    logs = model.evaluate(test, return_dict=True, verbose=0)
    assert logs["bits_per_sample"] < marginal - 0.8
    np.testing.assert_allclose(
        logs["loss"], -np.mean(model.log_prob(test)), rtol=1e-4
    )
    np.testing.assert_allclose(
        logs["bits_per_sample"], logs["loss"] / 64 / np.log(2), rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["classes", "frames"])
def test_training_takes_conditions(kind, tmp_path):
    options, condition = CONDITIONS[kind]
    model, given = wavenet(**options), {"condition": condition}
    data = tf.data.Dataset.from_tensor_slices((sound(), condition)).batch(5)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    history = model.fit(data, validation_data=data, epochs=2, verbose=0).history
    assert history["val_loss"][1] < history["loss"][0]
    model.save(tmp_path / "x.keras")
    loaded = keras.saving.load_model(tmp_path / "x.keras")
    np.testing.assert_array_equal(
        model.log_prob(sound(), **given), loaded.log_prob(sound(), **given)
    )
    assert loaded.get_config() == model.get_config()


def test_nan_in_any_sample_skips_the_update():
    model = wavenet()
    before = model.get_weights()
    model.compile(jit_compile=False)
    x = sound()
    x[3, -1] = np.nan  # of which no later sample takes notice
    logs = model.train_step(tf.constant(x))
    assert int(logs["skipped_updates"]) == 1
    for one, other in zip(before, model.get_weights(), strict=True):
        if one.dtype == "float32":
            np.testing.assert_array_equal(one, other)


def test_data_that_are_no_waveforms_are_refused(plain):
    plain.compile()
    for bad, word in (
        (sound() * 32768, "32768"),
        (sound()[..., None], r"x\[..., 0\]"),
        (None, "None"),
    ):
        for method in (plain.fit, plain.evaluate, plain.log_prob):
            with pytest.raises(ValueError, match=f"`x`.*{word}"):
                method(bad)


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"num_samples": 0}, "num_samples"),
        ({"num_filters": 2.5}, "num_filters"),
        ({"dilations": ()}, "dilations"),
        ({"dilations": 4}, "dilations"),
        ({"dilations": (1, 0)}, "dilations"),
        ({"skip_filters": 0}, "skip_filters"),
        ({"levels": 1}, "levels"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 2, "condition_dim": 2}, "condition_dim"),
        ({"frame_length": 4}, "frame_length"),
        ({"frame_length": 3, "condition_dim": 2}, "frame_length"),
        ({"frame_length": 0, "condition_dim": 2}, "frame_length"),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        WaveNet(**{"num_samples": 8, **arguments})


@pytest.mark.parametrize("kind", ["classes", "frames"])
def test_prediction_checks_sounds_and_conditions(kind):
    options, condition = CONDITIONS[kind]
    model, x = wavenet(**options), sound()
    assert model.predict([x, condition], verbose=0).shape == x.shape
    bad = condition + (1 if kind == "classes" else np.inf)
    with pytest.raises(ValueError, match="`condition`"):
        model.predict([x, bad], verbose=0)
    with pytest.raises(ValueError, match="`x`"):
        model.predict([x * np.nan, condition], verbose=0)


def test_the_example_trains_compares_and_writes_sound(tmp_path, run_example):
    for split, count in (("train", 1600), ("test", 600)):
        (tmp_path / split).mkdir()
        x = ar2(1, count, seed=count)[0]
        audio.write_wav(tmp_path / split / "a.wav", x, 8000)
    printed = run_example(
        "wavenet",
        f"--dataset={tmp_path}",
        f"--output_dir={tmp_path}",
        "--num_samples=100",
        "--num_filters=4",
        "--num_dilations=2",
        "--epochs=1",
        "--batch_size=8",
    )
    assert "2/2" in printed and "bits a sample" in printed
    assert "nan" not in printed
    assert (tmp_path / "wavenet.keras").stat().st_size > 1000
    with wave.open(str(tmp_path / "samples.wav")) as file:
        assert file.getparams()[:4] == (1, 2, 8000, 400)
        assert len(set(np.frombuffer(file.readframes(400), "<i2"))) > 9
    loaded = tf.saved_model.load(str(tmp_path / "serving"))
    samples = loaded.sample(tf.constant(3), tf.constant(0, tf.int64))
    assert samples.shape == (3, 100)
