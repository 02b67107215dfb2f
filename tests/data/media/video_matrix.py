"""The matrix of videos in which random access is compared with sequential decoding."""

from itertools import product

from tests.data.media.video_files import Recipe

_X264 = "scenecut=0:b-adapt=0:weightp=0"
_X265 = "scenecut=0:b-adapt=0:log-level=none:pools=none:frame-threads=1"

H264 = {
    "intra": {"g": "1", "bf": "0"},
    "closed": {"g": "10", "bf": "0", "x264-params": _X264},
    "b2": {"g": "10", "bf": "2", "x264-params": _X264},
    "pyramid": {"g": "12", "bf": "3", "x264-params": f"{_X264}:b-pyramid=normal"},
    "open": {"x264-params": f"{_X264}:open-gop=1:bframes=3:keyint=12:min-keyint=12"},
    "long": {"g": "250", "bf": "3"},
    "refresh": {"g": "12", "bf": "0", "x264-params": f"{_X264}:intra-refresh=1"},
    "refresh_b2": {"g": "12", "bf": "2", "x264-params": f"{_X264}:intra-refresh=1"},
    "mbaff": {"g": "12", "bf": "2", "x264-params": f"{_X264}:tff=1"},
    "mbaff_open": {"x264-params": f"{_X264}:tff=1:open-gop=1:bframes=2:keyint=12:min-keyint=12"},
}
HEVC = {
    "intra": {"x265-params": f"{_X265}:keyint=1:bframes=0"},
    "closed": {"x265-params": f"{_X265}:keyint=10:min-keyint=10:bframes=0:open-gop=0"},
    "b2": {"x265-params": f"{_X265}:keyint=10:min-keyint=10:bframes=2:open-gop=0:b-pyramid=0"},
    "pyramid": {"x265-params": f"{_X265}:keyint=12:min-keyint=12:bframes=3:open-gop=0"},
    "open": {"x265-params": f"{_X265}:keyint=12:min-keyint=12:bframes=3"},
    "long": {"x265-params": f"{_X265}:keyint=250:bframes=3"},
    "refresh": {"x265-params": f"{_X265}:keyint=12:bframes=0:intra-refresh=1"},
}
MPEG = {
    "intra": {"g": "1", "qscale": "2"},
    "b0": {"g": "8", "qscale": "2"},
    "b2": {"g": "9", "bf": "2", "qscale": "2"},
    "closed_b2": {"g": "9", "bf": "2", "qscale": "2", "flags": "+cgop", "sc_threshold": "1000000000"},
    "long": {"g": "300", "bf": "2", "qscale": "2"},
}
INTERLACED = {"interlaced": {"g": "9", "bf": "2", "qscale": "2", "flags": "+ildct+ilme"}}
PLAIN = {"intra": {"g": "1", "qscale": "2"}, "gop": {"g": "8", "qscale": "2"}, "long": {"g": "300", "qscale": "2"}}
VP8 = {
    "intra": {"g": "1", "crf": "10", "b": "1M"},
    "closed": {"g": "8", "crf": "10", "b": "1M", "lag-in-frames": "0"},
    "hidden": {"g": "16", "crf": "10", "b": "1M", "lag-in-frames": "16", "auto-alt-ref": "1"},
}
VP9 = {
    "intra": {"g": "1", "crf": "10", "b": "0", "cpu-used": "8"},
    "closed": {"g": "6", "crf": "10", "b": "0", "cpu-used": "8", "lag-in-frames": "0"},
    "hidden": {"g": "16", "crf": "10", "b": "0", "cpu-used": "5", "lag-in-frames": "16", "auto-alt-ref": "1"},
}
AV1 = {
    "closed": {"crf": "20", "preset": "12", "g": "12"},
    "forward": {"crf": "20", "preset": "10", "g": "15", "svtav1-params": "irefresh-type=1"},
}
NOTHING: dict[str, dict[str, str]] = {"plain": {}}

_FAMILIES: list[tuple[str, dict[str, dict[str, str]], list[str], dict[str, object]]] = [
    ("libx264", H264, ["mp4", "mov", "mkv", "ts", "flv", "avi", "wmv", "mpg", "h264"], {}),
    ("libx265", HEVC, ["mp4", "mov", "mkv", "ts", "flv", "hevc"], {}),
    ("mpeg4", MPEG, ["mp4", "mov", "mkv", "avi", "ts", "wmv", "m4v"], {}),
    ("mpeg2video", MPEG | INTERLACED, ["mpg", "ts", "mkv", "mp4", "avi", "vob", "m2v"], {}),
    ("mpeg1video", MPEG, ["mpg", "mkv", "avi"], {}),
    ("libvpx", VP8, ["webm", "mkv", "avi"], {"width": 128}),
    ("libvpx-vp9", VP9, ["webm", "mkv", "mp4", "avi"], {"width": 128}),
    ("libsvtav1", AV1, ["mkv", "webm", "mp4"], {}),
    ("msmpeg4v2", PLAIN, ["avi", "wmv"], {}),
    ("msmpeg4", PLAIN, ["avi", "wmv", "mkv"], {}),
    ("wmv1", PLAIN, ["wmv", "avi"], {}),
    ("wmv2", PLAIN, ["wmv", "avi"], {}),
    ("flv", PLAIN, ["flv", "avi"], {}),
    ("h263", PLAIN, ["3gp", "avi"], {"width": 128, "height": 96}),
    ("mjpeg", NOTHING, ["avi", "mov", "mkv", "mp4"], {"pix_fmt": "yuvj420p"}),
    ("prores_ks", NOTHING, ["mov", "mkv"], {"pix_fmt": "yuv422p10le"}),
    ("ffv1", {"intra": {"g": "1"}, "gop": {"g": "12"}}, ["mkv", "avi"], {}),
    ("huffyuv", NOTHING, ["avi"], {"pix_fmt": "yuv422p"}),
    ("utvideo", NOTHING, ["avi"], {}),
    ("png", NOTHING, ["mov", "avi"], {"pix_fmt": "rgb24"}),
    ("rawvideo", NOTHING, ["avi", "mkv"], {}),
    ("gif", NOTHING, ["gif"], {"pix_fmt": "rgb8"}),
    # Codecs whose packets are not parsed: decoded once, and always from the start.
    ("svq1", PLAIN, ["mov"], {"pix_fmt": "yuv410p"}),
    ("qtrle", PLAIN, ["mov"], {"pix_fmt": "rgb24"}),
    ("cinepak", PLAIN, ["avi"], {"pix_fmt": "rgb24"}),
    ("zmbv", PLAIN, ["avi"], {"pix_fmt": "bgr0"}),
    ("rv20", PLAIN, ["rm"], {}),
    ("snow", PLAIN, ["avi"], {"pix_fmt": "yuv420p"}),
]


def recipes() -> dict[str, Recipe]:
    """The whole matrix: every codec in each of its structures and containers."""
    made: dict[str, Recipe] = {}
    for codec, structures, suffixes, more in _FAMILIES:
        for (name, options), suffix in product(structures.items(), suffixes):
            made[f"{codec}-{name}-{suffix}"] = Recipe(suffix, codec, options, **more)
    return made
