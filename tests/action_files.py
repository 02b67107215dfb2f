"""Small copies of Kinetics and Something-Something V2 in their authors' layout."""

import csv
import json
from fractions import Fraction

import av
import numpy as np

KINETICS_CLASSES = ["abseiling", "arm wrestling", "tai chi"]
TEMPLATES = {"Pulling [something] from left to right": 1, "Approaching [something] with your camera": 0}


def write_video(path, num_frames, *, value=0, size=(48, 64), codec="mpeg4", moving=True):
    """A video whose brightness is `value`, plus twice the number of the frame if it moves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    container_format = {"format": "webm"} if codec == "vp9" else {}
    with av.open(str(path), "w", **container_format) as container:
        options = {"qscale": "1", "g": "10"} if codec == "mpeg4" else {"cpu-used": "8", "deadline": "realtime"}
        name = "libvpx-vp9" if codec == "vp9" else codec
        stream = container.add_stream(name, rate=Fraction(12), options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for number in range(num_frames):
            image = np.full((*size, 3), min(255, value + 2 * number * moving), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def write_csv(path, rows, header="label,youtube_id,time_start,time_end,split,is_cc"):
    """An official annotation file of (label, id, start, end, split)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(header + "\n")
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([[*row, 0][: header.count(",") + 1] for row in rows])


def write_kinetics(root, *, per_class=2, num_frames=6, folders=True, splits=("train", "val")):
    """Kinetics with 3 classes that differ in brightness; ids as YouTube makes them."""
    for split in splits:
        rows = []
        for number in range(per_class * len(KINETICS_CLASSES)):
            label = KINETICS_CLASSES[number % len(KINETICS_CLASSES)]
            name, start = f"-_{split[0]}{number:03d}_a-bcd"[:11], 10 * number
            folder = root / split / label if folders else root / split
            value = 20 + 90 * (number % len(KINETICS_CLASSES))
            write_video(folder / f"{name}_{start:06d}_{start + 10:06d}.mp4", num_frames, value=value)
            rows.append((label, name, start, start + 10, split))
        write_csv(root / "annotations" / f"{split}.csv", rows)


def write_something(root, *, num_videos=4, num_frames=6, prefix="", folder="labels"):
    """Something-Something V2 with 2 classes that differ in brightness."""
    labels = root / folder
    labels.mkdir(parents=True, exist_ok=True)
    plain = {template.replace("[", "").replace("]", ""): str(number) for template, number in TEMPLATES.items()}
    (labels / f"{prefix}labels.json").write_text(json.dumps(plain))
    for offset, split in enumerate(["train", "validation", "test"]):
        records = []
        for number in range(num_videos):
            template = list(TEMPLATES)[number % 2]
            name = str(1000 * (offset + 1) + number)
            record = {"id": name, "label": template.lower(), "template": template, "placeholders": ["a cup"]}
            records.append({"id": name} if split == "test" else record)
            path = root / "20bn-something-something-v2" / f"{name}.webm"
            write_video(path, num_frames, value=30 + 150 * TEMPLATES[template], codec="vp9")
        (labels / f"{prefix}{split}.json").write_text(json.dumps(records))
