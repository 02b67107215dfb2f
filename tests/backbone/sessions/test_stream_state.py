"""Saving, forking, moving and refusing: sessions of every kind of cache."""

import io
import weakref

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from visibility import visible_frames

from omnistream.backbone.sessions.kv_store import LayerStore
from omnistream.backbone.sessions.options import SessionOptions
from omnistream.backbone.time_mode import stream_times

KINDS = [
    {},
    {"window": 3, "sink": 0},
    {"max_frames": 12},
    {"cache_dtype": torch.bfloat16},
    {"cache_dtype": "float16", "window": 2},
    {"cache_dtype": "int8"},
    {"cache_dtype": torch.int8, "window": 4, "sink": 2},
    {"cache_dtype": torch.int8, "max_frames": 12, "sink": 0},
    {"time_mode": "official", "window": 3},
]


# Relative error of two ways to the same features. Where both attend to the same slots in the same order they agree bit
# for bit here; these leave room for another order of sums, once in float32 (measured 2.4e-7) and once in half precision
# (9e-5 in float16), and for a code of 8 bits that falls to the other side (7e-5). What the caches themselves round off
# is 1.2e-3, 1.6e-4 and 0.9e-3 to 1.6e-3 (in the order below).
SAME = {None: 2e-6, torch.bfloat16: 5e-4, torch.float16: 1.5e-4, torch.int8: 3e-4}


def clip(num_frames, batch=2, height=16, width=24):
    return torch.randn(batch, num_frames, 3, height, width)


def run(session, images, size=1):
    return torch.cat([session.step(chunk).last for chunk in images.split(size, dim=1)], dim=1)


def off(result, expected):
    return ((result - expected).norm() / expected.norm()).item()


def dtype_of(options):
    return SessionOptions(cache_dtype=options.get("cache_dtype")).stored_dtype


def same(options):
    return SAME[dtype_of(options)]


class Uncached:
    """Attention in the dtype of a cache over a list of all frames, rounded as the cache rounds them."""

    def __init__(self, dtype, window, sink):
        self.dtype, self.window, self.sink, self.past = dtype, window, sink, {}

    def attend(self, layer, query, key, value):
        past = self.past.setdefault(layer, [])
        frame, dtype = len(past), query.dtype if self.dtype in (None, torch.int8) else self.dtype
        own = key.to(dtype), value.to(dtype)
        shown = [*(past[n] for n in visible_frames(frame, self.window, self.sink)[:-1]), own]
        rounded = self.dtype == torch.int8 and frame >= self.sink
        past.append(tuple(map(self.in_8_bits, own)) if rounded else own)
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*shown, strict=True))
        return scaled_dot_product_attention(query.to(dtype), keys, values).to(query.dtype)

    @staticmethod
    def in_8_bits(tokens):
        scale = tokens.abs().amax(-1, keepdim=True) / 127
        return (tokens / scale).round() * scale


@torch.no_grad()
def uncached(model, images, options):
    """The last features without any cache, frame by frame."""
    window, mode = options.get("window"), options.get("time_mode", "absolute")
    context = Uncached(
        SessionOptions(cache_dtype=options.get("cache_dtype")).stored_dtype, window, options.get("sink", 1)
    )
    outputs = []
    for n, frame in enumerate(images.split(1, dim=1)):
        index = torch.tensor([n])
        outputs.append(model.encode(frame, index, context, times=stream_times(index, window, mode)).last)
    return torch.cat(outputs, dim=1)


def addresses(session):
    return [t.data_ptr() for store in session.cache.stores for t in store.tensors.values() if t.numel()]


@pytest.mark.parametrize("options", KINDS)
def test_every_kind_goes_through_a_file(build, options):
    model, images = build(), clip(11)
    session = model.stream(**options)
    run(session, images[:, :6])
    file = io.BytesIO()
    torch.save(session.state_dict(), file)
    expected = run(session, images[:, 6:])
    file.seek(0)
    resumed = model.stream(**options)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(run(resumed, images[:, 6:]), expected, atol=0, rtol=0)
    assert resumed.cache.num_bytes == session.cache.num_bytes


@pytest.mark.parametrize("options", KINDS)
def test_every_kind_forks_without_sharing_memory(build, options):
    model, images = build(), clip(9)
    session = model.stream(**options)
    run(session, images[:, :6])
    fork = session.fork()
    assert set(addresses(fork)).isdisjoint(addresses(session))
    run(fork, clip(3))
    untouched = model.stream(**options)
    assert torch.equal(run(session, images[:, 6:]), run(untouched, images)[:, 6:])


@pytest.mark.parametrize("options", KINDS)
def test_every_kind_is_what_its_rounding_gives_without_a_cache_in_any_chunking(build, options):
    model, images = build(), clip(11)
    expected = uncached(model, images, options)
    for size in (1, 4):
        result = run(model.stream(**options), images, size)
        assert off(result, expected) < same(options)
    if "cache_dtype" in options:  # else the test could not tell a cache that does not round
        exact = run(model.stream(**{k: v for k, v in options.items() if k != "cache_dtype"}), images)
        assert off(result, expected) < off(result, exact)


@pytest.mark.parametrize("options", KINDS)
def test_every_kind_lets_rows_start_anew(build, options):
    model, images = build(), clip(9, batch=4)
    session = model.stream(**options)
    run(session, images[:, :4])
    session.reset([0, 2])
    run(session, images[:, 4:5])
    session.reset([3])
    result = run(session, images[:, 5:], 2)
    for row, start in enumerate((4, 0, 4, 5)):
        one = slice(row, row + 1)
        alone = uncached(model, images[one, start:], options)
        assert off(result[one], alone[:, 5 - start :]) < same(options)


def test_rows_at_different_frames_go_through_the_model_together(build, monkeypatch):
    model = build()
    session = model.stream()
    session.step(clip(2, batch=4))
    session.reset([1, 2])
    calls = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: calls.append(args[0].shape[0]))
    session.step(clip(1, batch=4))
    assert calls == [4]


@pytest.mark.parametrize("options", [kind for kind in KINDS if "window" in kind])
def test_memory_never_moves_nor_grows_once_the_ring_is_full(build, options):
    session = build().stream(**options)
    run(session, clip(options["window"] + 1))
    before = addresses(session), session.cache.num_bytes
    session.reset([0])
    run(session, clip(12))
    assert (addresses(session), session.cache.num_bytes) == before


@pytest.mark.parametrize("options", [kind for kind in KINDS if "max_frames" in kind])
def test_memory_set_aside_never_moves(build, options):
    session = build().stream(**options)
    session.step(clip(1))
    before = addresses(session)
    run(session, clip(11))
    assert addresses(session) == before
    with pytest.raises(ValueError, match="reached max_frames=12"):
        session.step(clip(1))


def test_saved_state_holds_what_was_seen_and_no_more(build):
    session = build().stream(max_frames=1000)
    session.step(clip(3))
    cache = session.state_dict()["cache"]
    assert cache["slots"] == 3
    assert all(t.shape[2] == 3 * 11 for layer in cache["layers"] for t in layer.values())
    assert all(t.untyped_storage().nbytes() == t.nbytes for layer in cache["layers"] for t in layer.values())


def test_other_options_are_refused_by_name(build):
    state = build().stream(window=3, cache_dtype="int8").state_dict()
    with pytest.raises(
        ValueError, match=r"options window=3, cache_dtype='int8'; this session has window=4, cache_dtype"
    ):
        build().stream(window=4).load_state_dict(state)
    with pytest.raises(ValueError, match="options time_mode='absolute'; this session has time_mode='official'"):
        build().stream(time_mode="official").load_state_dict(build().stream().state_dict())
    with pytest.raises(ValueError, match="options rope_layout='rotation'"):
        build(rope_layout="official").stream().load_state_dict(build().stream().state_dict())
    with pytest.raises(ValueError, match="not the state of a session: it lacks layout"):
        build().stream().load_state_dict({"options": {}})


def test_a_state_of_another_size_is_refused(build):
    session = build().stream()
    session.step(clip(2))
    state = session.state_dict()
    state["layout"]["height"] = 24
    with pytest.raises(ValueError, match=r"saved keys of layer 0 have shape \(2, 2, 22, 32\) .*, this session's have"):
        build().stream().load_state_dict(state)


def drop(*path):
    def spoil(state):
        for key in path[:-1]:
            state = state[key]
        del state[path[-1]]

    return spoil


def put(value, *path):
    def spoil(state):
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop("cache"), "it lacks cache"),
        (drop("frame_indices"), "it lacks frame_indices"),
        (put(3, "options"), "its options should be a dictionary, got int"),
        (put([], "layout"), "its layout should be a dictionary, got list"),
        (drop("layout", "dtype"), "its layout lacks dtype"),
        (put("int64", "layout", "dtype"), "dtype should name a floating-point dtype, got 'int64'"),
        (put("load", "layout", "dtype"), "dtype should name a floating-point dtype, got 'load'"),
        (put(0, "layout", "batch_size"), r"should be positive, got \[0, 16, 24\]"),
        (put(20, "layout", "height"), "multiples of the patch size 8, got height 20"),
        (put([2, 2], "frame_indices"), r"one value per stream \(2\), got list"),
        (put(torch.tensor([2]), "frame_indices"), r"one value per stream \(2\), got shape \(1,\)"),
        (put(torch.tensor([2.0, 2.0]), "frame_indices"), r"should be int64 .*got shape \(2,\) \(torch.float32"),
        (put(torch.tensor([2, -1]), "frame_indices"), r"should not be negative, got \[2, -1\]"),
        (put(torch.tensor([2, 5]), "frame_indices"), "cache holds 2 frames, a stream of 5 frames leaves 4"),
        (put(torch.tensor([1, 1]), "frame_indices"), "cache holds 2 frames, a stream of 1 frames leaves 1"),
        (drop("cache", "heads"), "its cache lacks heads"),
        (put([4, 16], "cache", "heads"), r"heads \(number, width\) \[4, 16\], the model has \(2, 32\)"),
        (put("bfloat32", "cache", "dtype"), "dtype should name a floating-point dtype, got 'bfloat32'"),
        (drop("cache", "layers", 3), "must have 4 layers, got 3; was it another model"),
        (put(None, "cache", "layers"), "must have 4 layers, got NoneType"),
        (put(None, "cache", "layers", 1), "layer 1 of its cache should be a dictionary, got NoneType"),
        (drop("cache", "layers", 2, "values"), "layer 2 of its cache lacks values"),
        (put(torch.zeros(2, 2, 22, 32).bfloat16(), "cache", "layers", 0, "keys"), r"keys of layer 0 .*bfloat16"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(build, spoil, message):
    model, images = build(), clip(4)
    session, other = model.stream(window=3), model.stream(window=3)
    run(session, images[:, :3])
    other.step(clip(2))
    state = other.state_dict()
    spoil(state)
    with pytest.raises(ValueError, match=message) as error:
        session.load_state_dict(state)
    assert "\n" not in str(error.value)
    assert torch.equal(run(session, images[:, 3:]), run(model.stream(window=3), images)[:, 3:])


def test_a_session_moves_with_its_memory(build):
    # The meta device stands for another one: what is on it has no content, but knows where it is.
    session = build().stream(cache_dtype="int8", camera_token=True, aspect_ratio=torch.ones(2))
    session.step(clip(2))
    assert session.to("meta") is session
    assert {t.device.type for store in session.cache.stores for t in store.tensors.values()} == {"meta"}
    assert session.aspect_ratio.device.type == "meta"
    with pytest.raises(ValueError, match=r"session is on meta and the backbone is on cpu; use session\.to"):
        session.step(clip(1))
    fresh = build().stream().to("cpu")
    assert fresh.step(clip(1)).last.device.type == "cpu"


def test_a_session_moved_to_where_it_is_goes_on_exactly(build):
    model, images = build(), clip(6)
    session = model.stream(window=2)
    run(session, images[:, :4])
    before = addresses(session)
    session.to("cpu")
    assert addresses(session) == before
    assert torch.equal(run(session, images[:, 4:]), run(model.stream(window=2), images)[:, 4:])


@pytest.mark.parametrize("options", [{"window": 2}, {"cache_dtype": "int8"}])
def test_a_cache_moves_layer_by_layer_with_its_content(build, monkeypatch, options):
    model, images, held = build(), clip(6), []
    session = model.stream(**options)
    run(session, images[:, :4])
    old = [weakref.ref(store) for store in session.cache.stores]
    move = LayerStore.move

    def watched(store, device):
        held.append(sum(ref() is not None for ref in old))
        return move(store, device)

    monkeypatch.setattr(LayerStore, "move", watched)
    session.cache.to(torch.device("cpu"))
    assert held == [4, 3, 2, 1]
    assert torch.equal(run(session, images[:, 4:]), run(model.stream(**options), images)[:, 4:])


def test_a_session_moved_in_inference_mode_goes_on_outside(build):
    session = build().stream(camera_token=True, aspect_ratio=torch.ones(2))
    with torch.inference_mode():
        session.step(clip(2))
        session.to("meta")
    tensors = [t for store in session.cache.stores for t in store.tensors.values()]
    assert {t.device.type for t in tensors} == {"meta"}
    assert not any(t.is_inference() for t in [*tensors, session.aspect_ratio])
    session.backbone.to("meta")
    assert session.step(clip(1).to("meta")).last.device.type == "meta"  # writes the cache


def test_the_aspect_ratio_goes_to_where_the_backbone_is(build):
    options = {"window": 2, "camera_token": True, "aspect_ratio": torch.tensor([0.5, 1.7])}
    saved = build().stream(**options)
    saved.step(clip(3))
    model = build().to("meta")
    begun, resumed = model.stream(**options), model.stream(**options)
    resumed.load_state_dict(saved.state_dict())
    for session in (begun, resumed):
        assert session.step(clip(2).to("meta")).camera.device.type == "meta"
        assert session.aspect_ratio.device.type == "meta"
    assert options["aspect_ratio"].device.type == "cpu"


def test_frames_and_backbone_on_two_devices_are_refused(build):
    with pytest.raises(ValueError, match="frames are on meta and the backbone is on cpu"):
        build().stream().step(clip(1).to("meta"))


def test_offloading_to_the_cpu_from_the_cpu_is_refused(build):
    with pytest.raises(ValueError, match="the backbone is on the CPU"):
        build().stream(offload=True)


def test_a_session_begun_in_inference_mode_goes_on_outside(build):
    model, images = build(), clip(4)
    session = model.stream(cache_dtype="int8")
    with torch.inference_mode():
        run(session, images[:, :2])
    result = run(session, images[:, 2:])
    assert not result.requires_grad
    assert torch.equal(result, run(model.stream(cache_dtype="int8"), images)[:, 2:])


def test_float32_frames_of_a_bfloat16_model_are_cast(build):
    model, images = build(), clip(6)
    expected = run(model.stream(), images)
    result = run(model.bfloat16().stream(), images)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, run(model.stream(), images.bfloat16()))
    model.float()
    # Four blocks of bfloat16, whose roundings are off by up to 0.4 % each.
    assert (result - expected).norm() / expected.norm() < 3e-2
