"""Tracks of surface points."""

from dataclasses import replace

import numpy as np
import pytest

from omnistream.data.world import WorldConfig, render_clip, track_points

CONFIG = WorldConfig(size=(64, 64), num_frames=6, moving_probability=0.8, unordered_probability=0.0)


@pytest.mark.parametrize("seed", range(4))
def test_visible_points_lie_on_the_depth_of_their_pixel(seed):
    clip = render_clip(seed, CONFIG)
    tracks = track_points(np.random.default_rng(seed), clip, 400)
    column, row = np.floor(np.nan_to_num(tracks.position)).astype(int).transpose(2, 0, 1)
    frame = np.repeat(np.arange(6)[:, None], 400, 1)
    see = tracks.visible
    assert 0.5 < see.mean() < 1
    near = np.abs(clip.depth[frame[see], row[see], column[see]] / tracks.depth[see] - 1) < 0.05
    assert near.mean() > 0.9  # the others are within half a pixel of an edge or on the slanted floor
    same = clip.instances[frame[see], row[see], column[see]] == np.broadcast_to(tracks.thing, see.shape)[see]
    assert same.mean() > 0.95


def test_a_point_projects_exactly_onto_the_pixel_it_was_drawn_at():
    clip = render_clip(2, CONFIG)
    tracks = track_points(np.random.default_rng(0), clip, 300)
    offset = np.abs(tracks.position % 1 - 0.5).max(-1)  # distance to the centre of a pixel
    assert (np.nanmin(offset, axis=0) < 2e-3).all()
    drawn = np.nanargmin(offset, axis=0)
    assert tracks.visible[drawn, np.arange(300)].mean() > 0.99
    column, row = np.floor(tracks.position[drawn, np.arange(300)]).astype(int).T
    np.testing.assert_allclose(tracks.depth[drawn, np.arange(300)], clip.depth[drawn, row, column], rtol=1e-4)


def test_hidden_points_are_behind_something_nearer():
    hidden_total = 0
    for seed in range(6):
        clip = render_clip(seed, CONFIG)
        tracks = track_points(np.random.default_rng(seed), clip, 300)
        inside = (tracks.position >= 1).all(-1) & (tracks.position < 63).all(-1)
        hidden = inside & ~tracks.visible
        frame = np.nonzero(hidden)[0]
        column, row = np.floor(tracks.position[hidden]).astype(int).T
        hidden_total += len(frame)
        nearest = np.min([clip.depth[frame, row + i, column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
        assert (nearest < tracks.depth[hidden] * 1.001).mean() > 0.98
    assert hidden_total > 100


def test_points_move_with_objects():
    for seed in range(20):
        clip = render_clip(seed, replace(CONFIG, camera_motion=0.0, camera_turn=0.0))
        tracks = track_points(np.random.default_rng(0), clip, 500)
        way = np.linalg.norm(clip.scene.position[-1] - clip.scene.position[0], axis=-1)
        on = [n for n in range(500) if tracks.thing[n] > 0 and way[tracks.thing[n] - 1] > 0.8]
        if len(on) > 10:
            moved = np.linalg.norm(tracks.position[-1, on] - tracks.position[0, on], axis=-1)
            assert np.nanmedian(moved) > 1.5
            return
    raise AssertionError("no clip with a moving object in view")
