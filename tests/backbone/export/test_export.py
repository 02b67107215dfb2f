"""Exported steps, run without our package or in ONNX Runtime, against `StreamSession`.

Tolerances: 3e-5 where the same kernels run (see test_stream.py), 1e-4 in ONNX Runtime, whose kernels are others.
"""

import json
import sys
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from processes import REPOSITORY, run_python

from omnistream.backbone.export.files import check_onnx_installed, export_onnx, export_step
from omnistream.backbone.sessions.frame_step import StepInput
from omnistream.backbone.sessions.options import SessionOptions

WINDOW = 3
SIZE = (16, 24)
OPTIONS = {"layers": (0, 1), "camera_token": True}
INPUTS = {"image_size": SIZE, "batch_size": 2, "aspect_ratio": (0.5, 1.7)}

RELOAD = """
import sys
import torch
file, inputs, outputs = sys.argv[1:]
step = torch.export.load(file).module()
results = [step(*frame) for frame in torch.load(inputs, weights_only=True)]
assert not any(name.split(".")[0] in ("omnistream", "einops", "jaxtyping") for name in sys.modules)
assert not any(value.requires_grad for value in results[-1].values())
torch.save(results, outputs)
"""


def session_of(model, **options):
    return model.stream(
        layers=OPTIONS["layers"], camera_token=True, aspect_ratio=torch.tensor(INPUTS["aspect_ratio"]), **options
    )


def expected_features(session, images):
    """Features of one frame per stream, named as the step names them."""
    output = session.step(images[:, None])
    named = {"last": output.last, "cls": output.cls, "registers": output.registers, "camera": output.camera}
    named |= {f"block_{layer}": patches for layer, patches in output.patches.items()}
    return {name: value[:, 0] for name, value in named.items()}


@pytest.fixture(scope="module")
def model(build):
    backbone = build()
    backbone.blocks, backbone.num_layers = backbone.blocks[:2], 2  # an exporter's time is spent block by block
    return backbone


@pytest.fixture(scope="module")
def pt2(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "new" / "step.pt2"
    assert (
        export_step(model, path, SessionOptions(window=WINDOW, **OPTIONS), StepInput(normalize=True, **INPUTS)) == path
    )
    return path


def test_pt2_runs_without_our_package(model, pt2, tmp_path):
    total, resets = 2 * WINDOW + 6, {2 * WINDOW + 3: [1]}
    images = torch.randint(0, 256, (total, 2, 3, *SIZE), dtype=torch.uint8)
    flags = torch.zeros(total, 2, dtype=torch.bool)
    session, expected = session_of(model, window=WINDOW, sink=1), []
    for t in range(total):
        session.reset(resets.get(t, []))
        flags[t, resets.get(t, [])] = True
        expected.append(expected_features(session, model.normalize(images[t])))
    torch.save(list(zip(images, flags, strict=True)), tmp_path / "in.pt")
    (tmp_path / "reload.py").write_text(RELOAD)
    # -I: without PYTHONPATH and the current folder, where our package could be found.
    run_python(["-I", "reload.py", str(pt2), "in.pt", "out.pt"], cwd=tmp_path)
    results = torch.load(tmp_path / "out.pt", weights_only=True)
    assert len(results) == total
    for result, features in zip(results, expected, strict=True):
        torch.testing.assert_close(result, features, atol=3e-5, rtol=0)


def test_export_leaves_nothing_but_the_file(model, pt2):
    assert [file.name for file in pt2.parent.iterdir()] == ["step.pt2"]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_empty_cache_takes_no_room(pt2):
    cache = 2 * (WINDOW + 1) * 12 * 64 * 4  # bytes for the keys of a layer: streams, slots, tokens, width, float32
    with zipfile.ZipFile(pt2) as archive:
        sizes = [entry.compress_size for entry in archive.infolist() if entry.file_size == cache]
    assert len(sizes) == 2 * 2
    assert max(sizes) < cache / 100


def test_example_runs_a_pt2(pt2, tmp_path):
    output = run_python([str(REPOSITORY / "examples/run_pt2.py"), str(pt2), "--frames", "2"], cwd=tmp_path)
    assert "vit_nano, images: uint8 RGB, 0 to 255, window 3, sink 1" in output
    assert "frame 1: " in output
    assert "last: [2, 2, 3, 64] torch.float32" in output


def feeds(session):
    """Zeros for every input; an axis without a size has none."""
    types = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}
    return {
        value.name: np.zeros([size if isinstance(size, int) else 0 for size in value.shape], types[value.type])
        for value in session.get_inputs()
    }


def run_onnx(session, state):
    names = [value.name for value in session.get_outputs()]
    results = dict(zip(names, session.run(None, state), strict=True))
    following = {name.removeprefix("next_"): value for name, value in results.items() if name.startswith("next_")}
    return {name: torch.from_numpy(v) for name, v in results.items() if not name.startswith("next_")}, following


def check_graph(path):
    """What TensorRT cannot run is not there."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"Tile", "Loop", "If", "Scan", "IsNaN"}
    assert "MatMul" in operators
    typed = [*graph.value_info, *graph.input, *graph.output]
    assert len(typed) > 100
    assert onnx.TensorProto.DOUBLE not in {value.type.tensor_type.elem_type for value in typed}
    assert onnx.TensorProto.DOUBLE not in {weight.data_type for weight in graph.initializer}


@pytest.fixture(scope="module")
def ring(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "ring.onnx"
    return export_onnx(model, path, SessionOptions(window=WINDOW, **OPTIONS), StepInput(normalize=True, **INPUTS))


def test_onnx_ring_equals_the_session(model, ring):
    check_graph(ring)
    runtime = onnxruntime.InferenceSession(ring)
    about = json.loads(runtime.get_modelmeta().custom_metadata_map["omnistream"])
    assert (about["window"], about["cache"], about["images"]) == (WINDOW, "ring", "uint8 RGB, 0 to 255")
    session, state = session_of(model, window=WINDOW, sink=1), feeds(runtime)
    for t in range(3 * WINDOW + 2):
        if t == 2 * WINDOW:  # a stream starts anew
            session.reset([0])
            state["frame"][0] = 0
        images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
        features, state = run_onnx(runtime, state | {"images": images.numpy()})
        expected = expected_features(session, model.normalize(images))
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)
    assert state["frame"].tolist() == session.frame_indices.tolist() == [WINDOW + 2, 3 * WINDOW + 2]


def test_onnx_positions_are_exact_in_the_millions(model, ring):
    runtime = onnxruntime.InferenceSession(ring)
    session, state = session_of(model, window=WINDOW, sink=1), feeds(runtime)
    first = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    session.step(model.normalize(first)[:, None])
    session.frame_indices += 3 * 11_111_111  # slot 1 is next, as it would be without the jump
    _, state = run_onnx(runtime, state | {"images": first.numpy()})
    state["frame"] += 3 * 11_111_111
    features, _ = run_onnx(runtime, state | {"images": first.numpy()})
    expected = expected_features(session, model.normalize(first))
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)


def test_onnx_growing_cache_from_empty_and_with_frames_dropped(model, tmp_path):
    path = export_onnx(
        model, tmp_path / "growing.onnx", SessionOptions(**OPTIONS), StepInput(**INPUTS), cache="growing"
    )
    check_graph(path)
    runtime = onnxruntime.InferenceSession(path)
    whole, windowed = feeds(runtime), feeds(runtime)
    assert whole["keys_0"].shape == (2, 0, 12, 2, 32)
    everything, recent = session_of(model), session_of(model, window=WINDOW, sink=1)
    for t in range(2 * WINDOW + 2):
        images = torch.randn(2, 3, *SIZE)
        features, whole = run_onnx(runtime, whole | {"images": images.numpy()})
        torch.testing.assert_close(features, expected_features(everything, images), atol=1e-4, rtol=0)
        features, windowed = run_onnx(runtime, windowed | {"images": images.numpy()})
        torch.testing.assert_close(features, expected_features(recent, images), atol=1e-4, rtol=0)
        if t >= WINDOW:  # forget the oldest but the sink
            windowed = {k: v if k == "frame" else np.delete(v, 1, axis=1) for k, v in windowed.items()}


def test_example_runs_onnx(ring, tmp_path):
    output = run_python([str(REPOSITORY / "examples/run_onnx.py"), str(ring), "--frames", "3"], cwd=tmp_path)
    assert "vit_nano, images: uint8 RGB, 0 to 255, cache ring, window 3" in output
    assert "frame 2: " in output
    assert "last: [2, 2, 3, 64] float32" in output


@pytest.mark.usefixtures("no_type_checks")
def test_mistakes_are_refused(model, tmp_path, monkeypatch):
    for options in (SessionOptions(window=2, compiled=True), SessionOptions(window=None, max_frames=4)):
        with pytest.raises(ValueError, match="neither compiled=True nor max_frames"):
            export_step(model, tmp_path / "a.pt2", options, StepInput(image_size=SIZE))
    with pytest.raises(ValueError, match="a ring needs a window"):
        export_step(model, tmp_path / "a.pt2", SessionOptions(), StepInput(image_size=SIZE))
    with pytest.raises(ValueError, match="cache must be 'ring' or 'growing', got 'paged'"):
        export_onnx(model, tmp_path / "a.onnx", SessionOptions(), StepInput(image_size=SIZE), cache="paged")
    with pytest.raises(ValueError, match="with a growing cache the caller drops old frames; pass window=None"):
        export_onnx(model, tmp_path / "a.onnx", SessionOptions(window=2), StepInput(image_size=SIZE), cache="growing")
    with pytest.raises(ValueError, match=r"needs float32 or float16, got torch\.bfloat16"):
        export_onnx(
            model, tmp_path / "a.onnx", SessionOptions(window=2, cache_dtype=torch.bfloat16), StepInput(image_size=SIZE)
        )
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"install it with: pip install 'omnistream\[onnx\]'"):
        check_onnx_installed()
