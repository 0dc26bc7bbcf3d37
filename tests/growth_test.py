"""When a progressive GAN grows: the numbers of the paper, worked by hand."""

import itertools
import json

import keras
import pytest

from keras_gen.growth import GrowthSchedule


def test_training_begins_stable_and_alternates_fades_with_rests():
    schedule = GrowthSchedule(fade_images=100, stable_images=50)
    expected = {
        0: (4, 1.0),
        49: (4, 1.0),
        50: (8, 0.0),
        75: (8, 0.25),
        149: (8, 0.99),
        150: (8, 1.0),
        199: (8, 1.0),
        200: (16, 0.0),
        300: (16, 1.0),
        350: (32, 0.0),
    }
    assert {images: schedule(images) for images in expected} == expected


def test_the_schedule_of_the_release_is_the_default():
    # lod = 8 - phase - max(k - 600, 0) / 600 for 1024 pixels, k in thousands.
    schedule = GrowthSchedule().ending_at(1024)
    for images in range(0, 12_000_000, 37_000):
        phase, k = divmod(images / 1000, 1200)
        lod = max(8 - phase - max(k - 600, 0) / 600, 0)
        resolution, alpha = schedule(images)
        level = 10 - int(lod // 1)
        fade = lod - lod // 1
        assert resolution == 2**level
        assert alpha == pytest.approx(1 - fade)
    assert schedule.total_images() == 600_000 + 8 * 1_200_000


def test_the_last_resolution_stays():
    schedule = GrowthSchedule(100, 50, end_resolution=8)
    assert schedule(120) == (8, pytest.approx(0.7))
    assert schedule(150) == schedule(10**9) == (8, 1.0)
    assert schedule.total_images() == 200
    only = GrowthSchedule(100, 50, start_resolution=16, end_resolution=16)
    assert only(0) == only(10**9) == (16, 1.0)


def test_alpha_rises_from_zero_to_one_at_every_resolution():
    schedule = GrowthSchedule(7, 3, start_resolution=8, end_resolution=64)
    trace = [schedule(i) for i in range(60)]
    for (low, before), (high, after) in itertools.pairwise(trace):
        if low == high:
            assert before <= after
        else:
            assert high == 2 * low and before == 1.0 and after == 0.0
        assert 0 <= after <= 1
    assert trace[-1] == (64, 1.0)


@pytest.mark.parametrize("fade, stable", [(0, 5), (5, 0)])
def test_a_fade_or_a_rest_may_be_left_out(fade, stable):
    schedule = GrowthSchedule(fade, stable, end_resolution=16)
    trace = [schedule(i) for i in range(0, 15)]
    if fade:
        assert trace[:5] == [(8, i / 5) for i in range(5)]
        assert trace[5:10] == [(16, i / 5) for i in range(5)]
        assert trace[10] == (16, 1.0)
    else:
        assert trace == [(4, 1.0)] * 5 + [(8, 1.0)] * 5 + [(16, 1.0)] * 5


def test_a_phase_knows_where_it_begins_and_ends():
    schedule = GrowthSchedule(100, 50, end_resolution=8)
    assert schedule.phase(0) == (4, False, 0, 50)
    assert schedule.phase(60) == (8, True, 50, 150)
    assert schedule.phase(160) == (8, False, 150, float("inf"))
    assert schedule.resolutions() == [4, 8]
    assert [schedule.images_at(r) for r in (4, 8)] == [50, 150]
    for seen, left in ((0, [50, 150]), (60, [0, 140]), (900, [0, 0])):
        assert [schedule.images_left_at(r, seen) for r in (4, 8)] == left


def test_batches_and_rates_hold_until_the_next_entry():
    schedule = GrowthSchedule(
        batch_size={4: 64, 32: 16}, learning_rate={16: 2e-3}
    )
    sizes = [schedule.batch_size_at(r) for r in (4, 8, 16, 32, 64)]
    assert sizes == [64, 64, 64, 16, 16]
    rates = [schedule.learning_rate_at(r) for r in (4, 8, 16, 32)]
    assert rates == [None, None, 2e-3, 2e-3]
    one = GrowthSchedule(batch_size=16, learning_rate=1e-3)
    assert one.batch_size_at(1024) == 16 and one.learning_rate_at(4) == 1e-3
    default = [GrowthSchedule().batch_size_at(4 * 2**i) for i in range(9)]
    assert default == [128, 128, 128, 64, 32, 16, 8, 4, 4]


def test_a_schedule_without_an_end_has_no_last_resolution():
    schedule = GrowthSchedule()
    assert schedule.total_images(4) == 600_000
    for question in (schedule.total_images, schedule.resolutions):
        with pytest.raises(ValueError, match=r"`end_resolution`.*got None"):
            question()


def test_a_resolution_that_there_is_not_has_no_total():
    schedule = GrowthSchedule(start_resolution=16)
    for resolution in (8, 24):
        with pytest.raises(ValueError, match="`resolution`"):
            schedule.total_images(resolution)


def test_images_seen_may_be_a_whole_float():
    resolution, alpha = GrowthSchedule()(1.2e6)
    assert (resolution, alpha) == (8, 1.0) and type(resolution) is int
    with pytest.raises(ValueError, match=r"`images_seen`.*got 1\.5"):
        GrowthSchedule()(1.5)


def test_another_end_is_of_the_same_class():
    class Small(GrowthSchedule):
        def batch_size_at(self, resolution):
            return 2

    schedule = Small(10, 20, learning_rate=1e-3).ending_at(8)
    assert type(schedule) is Small and schedule.batch_size_at(4) == 2
    assert vars(schedule) == vars(
        GrowthSchedule(10, 20, learning_rate=1e-3, end_resolution=8)
    )


def test_a_schedule_survives_serialization():
    schedule = GrowthSchedule(
        10, 20, {4: 8, 16: 4}, {8: 1e-3}, start_resolution=8, end_resolution=32
    )
    config = schedule.get_config()
    GrowthSchedule.from_config(config)
    assert config == schedule.get_config()
    text = json.dumps(keras.saving.serialize_keras_object(schedule))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert vars(again) == vars(schedule)
    default = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(GrowthSchedule())
    )
    assert vars(default) == vars(GrowthSchedule())


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"fade_images": -1}, "`fade_images`"),
        ({"stable_images": 2.5}, "`stable_images`"),
        ({"fade_images": 0, "stable_images": 0}, "both be 0"),
        ({"start_resolution": 12}, "8 and 16"),
        ({"start_resolution": 3}, "`start_resolution`"),
        ({"end_resolution": 28}, "16 and 32"),
        ({"start_resolution": 16, "end_resolution": 8}, "`end_resolution`"),
        ({"batch_size": {8: 4}}, "`batch_size`"),
        ({"batch_size": {4: 0}}, "`batch_size"),
        ({"batch_size": [4]}, "`batch_size`"),
        ({"batch_size": {5: 4}}, "a key"),
        ({"batch_size": {4: 8, "8": 4}}, "a key.*got '8'"),
        ({"learning_rate": {4: -1.0}}, "`learning_rate"),
        ({"learning_rate": "fast" * 999}, "`learning_rate`"),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word) as error:
        GrowthSchedule(**arguments)
    assert len(str(error.value)) <= 600
