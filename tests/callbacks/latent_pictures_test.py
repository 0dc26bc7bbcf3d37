import statistics

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen import PCA, VAE, images, networks
from keras_gen.callbacks.latent_pictures import (
    InterpolationGrid,
    LatentManifold,
    LatentTraversal,
)

tfd = tfp.distributions

SCALES = (1.0, 0.1, 0.5)  # of the posterior, which is centered at the code


class Pixels(keras.Model):
    """Latent i is pixel i: `decode(z) = (z + 4) / 8`, and back."""

    def __init__(self, latent_dim=3):
        super().__init__()
        self.latent_dim = latent_dim
        self.prior = tfd.MultivariateNormalDiag(tf.zeros(latent_dim))
        self.conditions = []
        self.built = True
        self.compile(optimizer=None)

    def train_step(self, data):
        return {"loss": 0.0}

    def encode(self, x, condition=None):
        self.conditions.append(condition)
        x = tf.cast(x, "float32") / (255 if x.dtype == "uint8" else 1)
        return 8 * tf.reshape(x, (-1, self.latent_dim)) - 4

    def decode(self, z, condition=None):
        self.conditions.append(condition)
        return images_of(tf.reshape(z, (-1, self.latent_dim)))


class Gaussian(Pixels):
    def posterior(self, x, condition=None):
        normal = tfd.Normal(self.encode(x), tf.constant(SCALES))
        return tfd.Independent(normal, 1)


class Generator(keras.Model):
    """Has no `decode`: it is called."""

    latent_dim = 3

    def train_step(self, data):
        return {"loss": 0.0}

    def call(self, z):
        return images_of(z)


def images_of(z):
    z = tf.cast(z, "float32")
    return tf.clip_by_value((z + 4) / 8, 0, 1)[:, tf.newaxis, :, tf.newaxis]


def codes(num_images=6):
    z = np.random.default_rng(0).uniform(-2, 2, (num_images, 3))
    z[:, 1] *= 0.1
    return z.astype("float32")


def draw(callback, model):
    callback.set_model(model)
    callback.on_train_begin()  # draws once, to see whether the model can
    getattr(model, "conditions", []).clear()
    callback.on_epoch_end(0)
    newest = callback.directory + f"/{callback.tag}.png"
    numbered = callback.directory + f"/{callback.prefix}_0001.png"
    pictures = [
        tf.io.decode_png(tf.io.read_file(p)) for p in (newest, numbered)
    ]
    np.testing.assert_array_equal(*pictures)
    return pictures[0].numpy()


def rows_of(path, num_columns):
    return images.grid(images_of(path.reshape(-1, 3)), num_columns=num_columns)


# Traversal


def test_rows_move_the_latents_of_the_highest_kl_one_by_one(tmp_path):
    z = codes()
    callback = LatentTraversal(
        tmp_path, images_of(z).numpy(), values=(-3, 0, 1), num_latents=2
    )
    kl = 0.5 * (z**2 + np.square(SCALES) - 1) - np.log(SCALES)
    order = np.argsort(-kl.mean(axis=0))
    assert list(order[:2]) == [1, 2]  # narrow scales: not the widest codes
    path = np.tile(z[0], (2, 3, 1))
    path[0, :, 1] = path[1, :, 2] = [-3, 0, 1]
    np.testing.assert_array_equal(
        draw(callback, Gaussian()), rows_of(path, num_columns=3)
    )


def test_codes_without_a_posterior_move_in_their_own_units(tmp_path):
    z = codes()
    callback = LatentTraversal(tmp_path, images_of(z).numpy(), values=(-1, 2))
    mean, std = z.mean(axis=0), z.std(axis=0)
    order = np.argsort(-std)
    path = np.tile(z[0], (3, 2, 1))
    for row, dim in enumerate(order):
        path[row, :, dim] = mean[dim] + np.array([-1, 2]) * std[dim]
    picture = draw(callback, Pixels())
    expected = rows_of(path, num_columns=2).astype(int)
    np.testing.assert_allclose(picture, expected, atol=1)


def test_a_posterior_without_moments_leaves_the_order_to_the_codes(tmp_path):
    class Flow(Pixels):
        def posterior(self, x, condition=None):
            flow = tfp.bijectors.Softplus()
            return flow(tfd.Normal(self.encode(x), 1.0))

    z = codes()
    callback = LatentTraversal(
        tmp_path, images_of(z).numpy(), values=(0, 2), num_latents=1
    )
    path = np.tile(z[0], (1, 2, 1))
    path[0, :, np.argmax(z.var(axis=0))] = [0, 2]
    np.testing.assert_array_equal(
        draw(callback, Flow()), rows_of(path, num_columns=2)
    )


def test_traversal_of_a_data_set_is_that_of_its_first_images(tmp_path):
    x = images_of(codes()).numpy()
    data = tf.data.Dataset.from_tensor_slices((x, range(6))).batch(4)
    callback = LatentTraversal(tmp_path, data, num_images=5)
    np.testing.assert_array_equal(callback.x, x[:5])


def test_conditions_of_the_first_image_reach_the_decoder(tmp_path):
    x, model = images_of(codes()).numpy(), Pixels()
    draw(LatentTraversal(tmp_path, x, condition=range(6), values=(0,)), model)
    encoded, decoded = model.conditions
    np.testing.assert_array_equal(encoded, range(6))
    np.testing.assert_array_equal(decoded, [0, 0, 0])


# Interpolation


@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_a_row_leads_from_an_image_to_its_neighbour(tmp_path, method):
    z = codes()
    callback = InterpolationGrid(
        tmp_path, images_of(z).numpy(), num_pairs=3, num_steps=4, method=method
    )
    picture = draw(callback, Pixels())
    t = np.linspace(0, 1, 4)[:, None]
    path = []
    for a, b in z.reshape(3, 2, 3):
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        angle = np.arccos(cosine)
        arc = np.sin((1 - t) * angle) * a + np.sin(t * angle) * b
        line = (1 - t) * a + t * b
        path.append(line if method == "linear" else arc / np.sin(angle))
    expected = rows_of(np.array(path), num_columns=4).astype(int)
    np.testing.assert_allclose(picture, expected, atol=1)


@pytest.mark.parametrize("model", [Pixels(), Generator()])
def test_without_images_paths_lead_between_normal_latents(tmp_path, model):
    arguments = {"num_pairs": 2, "num_steps": 3, "method": "linear"}
    picture = draw(InterpolationGrid(tmp_path, seed=7, **arguments), model)
    z = np.random.default_rng(7).standard_normal((4, 3))
    a, b = z[::2, None], z[1::2, None]
    t = np.linspace(0, 1, 3)[None, :, None]
    expected = rows_of(a + t * (b - a), num_columns=3).astype(int)
    np.testing.assert_allclose(picture, expected, atol=1)
    again = draw(InterpolationGrid(tmp_path, seed=7, **arguments), model)
    np.testing.assert_array_equal(picture, again)


def test_a_path_has_the_condition_of_its_start(tmp_path):
    model = Pixels()
    callback = InterpolationGrid(
        tmp_path,
        images_of(codes(4)).numpy(),
        num_pairs=2,
        num_steps=3,
        condition=[4, 5, 6, 7],
    )
    draw(callback, model)
    encoded, decoded = model.conditions
    np.testing.assert_array_equal(encoded, [4, 5, 6, 7])
    np.testing.assert_array_equal(decoded, [4, 4, 4, 6, 6, 6])


# Manifold


def test_the_map_is_a_grid_of_normal_quantiles(tmp_path):
    class Plane(Pixels):
        def decode(self, z, condition=None):
            z = tf.concat([z, tf.zeros_like(z[:, :1])], axis=1)
            return images_of(z)

    picture = draw(LatentManifold(tmp_path, size=4), Plane(2))
    quantile = statistics.NormalDist().inv_cdf
    quantiles = [quantile(p) for p in (0.125, 0.375, 0.625, 0.875)]
    path = [(x, y, 0) for y in quantiles[::-1] for x in quantiles]
    np.testing.assert_array_equal(picture, rows_of(np.array(path), 4))


def test_the_whole_map_has_one_condition(tmp_path):
    class Plane(Pixels):
        def decode(self, z, condition=None):
            assert list(condition) == [3] * 4
            return tf.zeros((4, 1, 1, 1))

    draw(LatentManifold(tmp_path, size=2, condition=3), Plane(2))


def test_a_map_of_other_dimensions_is_refused_before_training(tmp_path):
    callback = LatentManifold(tmp_path)
    callback.set_model(Pixels(3))
    with pytest.raises(
        ValueError, match=r"`latent_dim` is 2, got 3.*Traversal"
    ):
        callback.on_train_begin()


# All of them


def test_all_three_draw_a_vae_while_it_trains(tmp_path):
    x = np.random.default_rng(0).random((16, 4, 4, 1), "float32")
    vae = VAE(
        (4, 4, 1),
        2,
        encoder=networks.mlp_encoder((4, 4, 1), 4, (8,)),
        decoder=networks.mlp_decoder(2, (4, 4, 1), (8,)),
        seed=0,
    )
    vae.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    callbacks = [
        LatentTraversal(tmp_path, x),
        InterpolationGrid(tmp_path, x, num_pairs=2),
        LatentManifold(tmp_path, size=5),
    ]
    vae.fit(x, epochs=2, verbose=0, callbacks=callbacks)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "interpolation_0001.png",
        "interpolation_0002.png",
        "interpolations.png",
        "manifold.png",
        "manifold_0001.png",
        "manifold_0002.png",
        "traversal_0001.png",
        "traversal_0002.png",
        "traversals.png",
    ]
    shapes = {
        name: tf.io.decode_png((tmp_path / f"{name}.png").read_bytes()).shape
        for name in ("traversals", "interpolations", "manifold")
    }
    assert shapes == {
        "traversals": (2 * 6 + 2, 7 * 6 + 2, 1),
        "interpolations": (2 * 6 + 2, 10 * 6 + 2, 1),
        "manifold": (5 * 6 + 2, 5 * 6 + 2, 1),
    }


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda d, x: LatentTraversal(d, x, num_latents=0), "`num_latents`"),
        (lambda d, x: LatentTraversal(d, x, num_images=0), "`num_images`"),
        (lambda d, x: LatentTraversal(d, x, values=[]), "`values`"),
        (lambda d, x: LatentTraversal(d, x[0]), "`x`"),
        (
            lambda d, x: LatentTraversal(d, x, condition=[1]),
            r"`condition`.*Expected 6.*\(1,\)",
        ),
        (lambda d, x: InterpolationGrid(d, x, num_pairs=0), "`num_pairs`"),
        (lambda d, x: InterpolationGrid(d, x, num_steps=1), "`num_steps`"),
        (lambda d, x: InterpolationGrid(d, x, method="curve"), "`method`"),
        (lambda d, x: InterpolationGrid(d, seed=None), "`seed`"),
        (
            lambda d, x: InterpolationGrid(d, x, num_pairs=4),
            "`x` must hold two images for each of the 4 pairs, got 6",
        ),
        (
            lambda d, x: InterpolationGrid(d, condition=[1]),
            r"`condition`.*Expected 16.*\(1,\)",
        ),
        (lambda d, x: LatentManifold(d, size=0), "`size`"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, images_of(codes()).numpy())


def test_a_missing_or_wrong_condition_is_refused_before_training(tmp_path):
    class Conditional(Pixels):
        num_steps = 0

        def train_step(self, data):
            self.num_steps += 1
            return {"loss": 0.0}

        def encode(self, x, condition=None):
            return super().encode(x)  # as classes may be inferred

        def decode(self, z, condition=None):
            if condition is None or np.max(condition) > 9:
                raise ValueError(f"`condition` is {condition}.")
            return super().decode(z)

    x = images_of(codes()).numpy()
    pairs = {"num_pairs": 3, "num_steps": 2}
    for callback in (
        LatentTraversal(tmp_path, x),
        LatentTraversal(tmp_path, x, condition=[10] * 6),
        InterpolationGrid(tmp_path, x, **pairs),
        InterpolationGrid(tmp_path, **pairs),
        InterpolationGrid(tmp_path, condition=[0, 0, 0, 0, 10, 0], **pairs),
    ):
        model = Conditional()
        with pytest.raises(ValueError, match=r"cannot draw.*`condition` is"):
            model.fit(x, verbose=0, callbacks=[callback])
        assert model.num_steps == 0
    callback = LatentManifold(tmp_path, condition=10)
    callback.set_model(Conditional(2))
    with pytest.raises(ValueError, match="Manifold` cannot draw this Cond"):
        callback.on_train_begin()


def test_models_without_the_verbs_are_refused_before_they_train(tmp_path):
    x = images_of(codes()).numpy()
    callbacks = {
        "encode": [
            LatentTraversal(tmp_path, x),
            InterpolationGrid(tmp_path, x, num_pairs=2),
        ],
        "decode": [LatentManifold(tmp_path)],
    }
    for verb, refused in callbacks.items():
        for callback in refused:
            callback.set_model(Generator())
            with pytest.raises(ValueError, match=f"`{verb}`.*Generator"):
                callback.on_train_begin()
    callback = InterpolationGrid(tmp_path)
    callback.set_model(keras.Model(name="without_latents"))
    with pytest.raises(ValueError, match=r"`x`.*got `x=None` for a Model"):
        callback.on_train_begin()


@pytest.mark.parametrize("name", ["PCA", "VAE"])
def test_paths_between_draws_need_normal_latents(tmp_path, name):
    model = {
        "PCA": lambda: PCA((4, 4, 1), 2),
        "VAE": lambda: VAE(
            (4, 4, 1), 2, latent="categorical", num_categories=3
        ),
    }[name]()
    callback = InterpolationGrid(tmp_path)
    callback.set_model(model)
    with pytest.raises(ValueError, match=f"`x=None` for a {name}"):
        callback.on_train_begin()
