"""The options of a stream: one declaration, checked when they are given."""

from dataclasses import FrozenInstanceError, fields, replace
from typing import get_type_hints

import pytest
import torch
from jsonargparse import ArgumentParser, set_parsing_settings

from omnistream.backbone import CompiledSession, SessionOptions, StreamSession, create_model
from omnistream.backbone.sessions.options import HOW_IT_RUNS, SessionKeywords


def test_the_keywords_of_stream_are_the_fields():
    hints, keywords = get_type_hints(SessionOptions), get_type_hints(SessionKeywords)
    assert {name: hints[name] for name in hints if name != "compiled"} == keywords


def test_options_are_frozen_and_plain():
    options = SessionOptions(layers=[1, 3], cache_dtype=torch.bfloat16)
    assert options == SessionOptions(layers=(1, 3), cache_dtype="bfloat16")
    assert options.stored_dtype == torch.bfloat16
    assert SessionOptions().stored_dtype is None
    assert SessionOptions(max_frames=1).max_frames == 1
    assert options.state() == {
        "window": "backbone", "sink": "backbone", "max_frames": None, "cache_dtype": "bfloat16",
        "time_mode": "backbone", "layers": (1, 3), "camera_token": False,
    }  # fmt: skip
    assert {field.name for field in fields(options)} - options.state().keys() == HOW_IT_RUNS
    with pytest.raises(FrozenInstanceError):
        options.window = 3
    with pytest.raises(TypeError):
        SessionOptions(3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": 0}, "window must be at least 1"),
        ({"window": 1, "sink": 2}, "sink must be between 0 and the window"),
        ({"sink": -1}, "sink must be between 0 and the window"),
        ({"max_frames": 0}, "max_frames must be at least 1"),
        ({"max_frames": 5, "window": 2}, r"for streams without a window \(here 2\)"),
        ({"cache_dtype": "int4"}, "must be one of float32, bfloat16, float16, int8"),
        ({"cache_dtype": torch.int64}, "must be one of float32, bfloat16, float16, int8"),
        ({"time_mode": "squeezed"}, "time_mode must be one of"),
        ({"backend": "eager"}, "pass compiled=True"),
        ({"mode": "max-autotune"}, "pass compiled=True"),
        ({"compiled": True, "cache_dtype": "int8"}, "floating-point cache"),
        ({"compiled": True, "offload": True}, "leave out offload=True"),
    ],
)
@pytest.mark.usefixtures("no_type_checks")
def test_mistakes_are_refused_when_options_are_made(given, message):
    with pytest.raises(ValueError, match=message):
        SessionOptions(**given)
    with pytest.raises(ValueError, match=message):
        create_model("vit_nano").stream(**given)


def test_values_of_the_backbone_are_filled_in():
    backbone = create_model("vit_nano", window=5, sink=2, time_mode="official")
    resolved = SessionOptions(layers=(1,)).resolve(backbone)
    assert (resolved.window, resolved.sink, resolved.time_mode, resolved.layers) == (5, 2, "official", (1,))
    resolved = SessionOptions(window=None, sink=0, time_mode="absolute").resolve(backbone)
    assert (resolved.window, resolved.sink, resolved.time_mode) == (None, 0, "absolute")
    assert resolved.resolve(create_model("vit_nano")) == resolved
    for options, message in (
        (SessionOptions(sink=6), "sink must be between 0 and the window"),
        (SessionOptions(window=1), "sink must be between 0 and the window"),
        (SessionOptions(max_frames=9), r"without a window \(here 5\)"),
        (SessionOptions(layers=(4,)), r"layers \[4\] do not exist"),
        (SessionOptions(offload=True), "the backbone is on the CPU"),
    ):
        with pytest.raises(ValueError, match=message):
            options.resolve(backbone)


def test_stream_takes_options_and_keywords():
    backbone, options = create_model("vit_nano"), SessionOptions(window=4, layers=(1,))
    session = backbone.stream(options, sink=0)
    assert isinstance(session, StreamSession)
    assert session.options == replace(options, sink=0).resolve(backbone)
    assert StreamSession(backbone).options == backbone.stream().options == SessionOptions().resolve(backbone)
    compiled = backbone.stream(options, compiled=True, backend="eager")
    assert isinstance(compiled, CompiledSession)
    assert compiled.options == replace(options, compiled=True, backend="eager").resolve(backbone)
    again = backbone.stream(compiled.options, compiled=False, backend="inductor")
    assert isinstance(again, StreamSession)
    with pytest.raises(TypeError, match="a stream has no option windows; its options are window, sink, max_frames,"):
        backbone.stream(windows=3)
    with pytest.raises(ValueError, match=r"use CompiledSession or backbone.stream\(compiled=True\)"):
        StreamSession(backbone, SessionOptions(compiled=True))


def test_options_are_documented_arguments_of_a_parser():
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SessionOptions, "stream")
    found = parser.parse_args(
        ["--stream.window=null", "--stream.cache_dtype=int8", "--stream.layers=[1, 2]", "--stream.sink=0"]
    )
    options = parser.instantiate_classes(found).stream
    assert options == SessionOptions(window=None, cache_dtype="int8", layers=(1, 2), sink=0)
    assert parser.instantiate_classes(parser.parse_string(parser.dump(found, skip_none=False))).stream == options
    text = " ".join(parser.format_help().split())
    assert "Number of past frames W that are remembered" in text
    assert "Number of frames at the start of the stream that a window never forgets." in text
