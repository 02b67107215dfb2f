"""The procedural world as data sets; samples are rendered on demand.

Training draws a new scene for every pass over the data; validation and test always use the same scenes. The seeds of
the three splits differ in their remainder by three, so no scene is in two of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Generic, Literal, TypeVar, get_args

import torch
from torch.utils.data import Dataset

from omnistream.data.batch import CaptionClip, FrameClip, SceneClip, TextTarget
from omnistream.data.sampling import SampleKey, sample_key, sample_rng, sample_seed
from omnistream.data.splits import Split
from omnistream.data.transforms import ImageTransform, SceneTransform, transform_clip, transform_images
from omnistream.data.world import language
from omnistream.data.world.actions import ACTIONS
from omnistream.data.world.clip import WorldClip, render_action, render_clip
from omnistream.data.world.config import WorldConfig
from omnistream.data.world.language import LanguageConfig

SPLITS: tuple[Split, ...] = ("train", "val", "test")
TextTask = Literal["caption", "ocr", "grounding", "region"]
TEXT_TASKS: tuple[TextTask, ...] = get_args(TextTask)
_TRIES = 50
TransformT = TypeVar("TransformT")


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {SPLITS}, got {split!r}")


def clip_seed(seed: int, split: Split, key: int | SampleKey, salt: int = 0) -> int:
    """The seed of a sample's scene; remainder by three is the split.

    Raises:
        ValueError: If the split is unknown.
    """
    _check_split(split)
    epoch, index = sample_key(key)
    drawn = int(sample_rng(seed, SampleKey(epoch if split == "train" else 0, index), salt).integers(2**62))
    return drawn - drawn % 3 + SPLITS.index(split)


class _World(Dataset, Generic[TransformT]):
    """Base of the world's data sets: length, seeds, settings, and the fields of every sample."""

    takes_keys = True

    def __init__(
        self,
        num_samples: int,
        split: Split,
        seed: int,
        num_frames: int,
        size: tuple[int, int],
        config: WorldConfig,
        transform: TransformT | None,
    ) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples: expected at least 1, got {num_samples}")
        _check_split(split)
        self.num_samples, self.split, self.seed, self.transform = num_samples, split, seed, transform
        self.config = replace(config, size=(size[0], size[1]), num_frames=num_frames)

    def __len__(self) -> int:
        return self.num_samples

    def _seed(self, key: int | SampleKey, salt: int = 0) -> int:
        if not 0 <= sample_key(key).index < self.num_samples:
            raise IndexError(f"index {sample_key(key).index} of a data set of {self.num_samples} samples")
        return clip_seed(self.seed, self.split, key, salt)

    def _common(self, key: int | SampleKey, seed: int, clip: WorldClip) -> dict[str, Any]:
        """Images, name and seed of a sample whose scene was drawn with `seed`."""
        return {
            "images": torch.from_numpy(clip.images),
            "name": f"world/{self.split}/{seed}",
            "seed": sample_seed(self.seed, key, salt=1),
        }


class _ImageWorld(_World[ImageTransform]):
    """Data sets whose transform is of the images alone."""

    def _common(self, key: int | SampleKey, seed: int, clip: WorldClip) -> dict[str, Any]:
        fields = super()._common(key, seed, clip)
        return fields | {"images": transform_images(self.transform, fields["images"], fields["seed"])}


class WorldScenes(_World[SceneTransform]):
    """Clips with exact geometry; metric.

    Args:
        num_samples: Length of the data set.
        split: Which of the disjoint splits.
        seed: Determines all scenes of the split.
        num_frames: Frames of a clip.
        size: Height and width in pixels.
        config: Statistics of the world; its size and number of frames are replaced by the above.
        transform: Applied to the frames of a clip, such as `SceneCrop`.
    """

    collate = staticmethod(SceneClip.collate)

    def __init__(
        self,
        num_samples: int = 1024,
        split: Split = "train",
        seed: int = 0,
        num_frames: int = 8,
        size: tuple[int, int] = (64, 64),
        config: WorldConfig = WorldConfig(),  # noqa: B008 (frozen)
        transform: SceneTransform | None = None,
    ) -> None:
        super().__init__(num_samples, split, seed, num_frames, size, config, transform)

    def __getitem__(self, key: int | SampleKey) -> SceneClip:
        """The clip of an index or key."""
        seed = self._seed(key)
        clip = render_clip(seed, self.config)
        sample = SceneClip(
            **self._common(key, seed, clip),
            depth=torch.from_numpy(clip.depth),
            valid=torch.from_numpy(clip.valid),
            intrinsics=torch.from_numpy(clip.intrinsics),
            camera_to_world=torch.from_numpy(clip.camera_to_world),
            is_metric=torch.tensor(True),
            is_video=torch.tensor(clip.is_video),
        )
        return transform_clip(self.transform, sample)


class WorldFrames(_ImageWorld):
    """Images or clips without labels, somewhat larger than the crops that self-supervision takes from them.

    Args:
        num_samples: Length of the data set.
        split: Which of the disjoint splits.
        seed: Determines all scenes of the split.
        num_frames: Frames of a clip; 1 for images.
        size: Height and width in pixels.
        config: Statistics of the world; its size and number of frames are replaced by the above, and all clips are
            videos.
        transform: Applied to the images of a clip, uint8 [T, 3, H, W].
    """

    collate = staticmethod(FrameClip.collate)

    def __init__(
        self,
        num_samples: int = 1024,
        split: Split = "train",
        seed: int = 0,
        num_frames: int = 1,
        size: tuple[int, int] = (96, 96),
        config: WorldConfig = WorldConfig(),  # noqa: B008 (frozen)
        transform: ImageTransform | None = None,
    ) -> None:
        super().__init__(
            num_samples, split, seed, num_frames, size, replace(config, unordered_probability=0.0), transform
        )

    def __getitem__(self, key: int | SampleKey) -> FrameClip:
        """The clip of an index or key."""
        seed = self._seed(key)
        return FrameClip(**self._common(key, seed, render_clip(seed, self.config)), label=torch.tensor(-1))


class WorldActions(_ImageWorld):
    """Clips of the actions in `actions.ACTIONS`; label = (index + epoch) modulo the number of classes.

    Labels are thus balanced in every run of indices, and chance is one in the number of classes.

    Args:
        num_samples: Length of the data set.
        split: Which of the disjoint splits.
        seed: Determines all scenes of the split.
        num_frames: Frames of a clip, at least `actions.MIN_FRAMES`.
        size: Height and width in pixels.
        config: Statistics of the world; its size and number of frames are replaced by the above.
        camera_motion: Longest path of the camera in metres; it is static by default.
        camera_turn: Largest turn of the camera in degrees.
        transform: Applied to the images of a clip, uint8 [T, 3, H, W].
    """

    classes = ACTIONS
    collate = staticmethod(FrameClip.collate)

    def __init__(
        self,
        num_samples: int = 1200,
        split: Split = "train",
        seed: int = 0,
        num_frames: int = 8,
        size: tuple[int, int] = (64, 64),
        config: WorldConfig = WorldConfig(),  # noqa: B008 (frozen)
        camera_motion: float = 0.0,
        camera_turn: float = 0.0,
        transform: ImageTransform | None = None,
    ) -> None:
        filmed = replace(
            config,
            camera_motion=camera_motion,
            camera_turn=camera_turn,
            camera_pitch=(3.0, 6.0),
            fov=(72.0, 84.0),
        )
        super().__init__(num_samples, split, seed, num_frames, size, filmed, transform)

    def __getitem__(self, key: int | SampleKey) -> FrameClip:
        """The clip of an index or key."""
        seed, (epoch, index) = self._seed(key, salt=2), sample_key(key)
        label = (index + (epoch if self.split == "train" else 0)) % len(self.classes)
        clip = render_action(seed, label, self.config)
        return FrameClip(**self._common(key, seed, clip), label=torch.tensor(label))


class WorldCaptions(_ImageWorld):
    """Images or clips with text: a caption, visible words, a phrase with its box, or a box with its name.

    The text describes the middle frame. If a scene does not suit the task (no word, no object with an unambiguous
    description), another scene is drawn.

    Args:
        num_samples: Length of the data set.
        split: Which of the disjoint splits.
        seed: Determines all scenes of the split.
        num_frames: Frames of a clip; 1 for images.
        size: Height and width in pixels.
        config: Statistics of the world; its size and number of frames are replaced by the above. Samples of
            visible words contain an overlay or a sign more often than it says.
        tasks: Which tasks to draw from.
        task_weights: Relative frequency of each task; None for equal frequencies.
        language_config: Length and detail of captions.
        transform: Applied to the images of a clip, uint8 [T, 3, H, W]. Boxes do not follow, so it should change
            colours only.
    """

    collate = staticmethod(CaptionClip.collate)

    def __init__(
        self,
        num_samples: int = 1024,
        split: Split = "train",
        seed: int = 0,
        num_frames: int = 1,
        size: tuple[int, int] = (64, 64),
        config: WorldConfig = WorldConfig(),  # noqa: B008 (frozen)
        tasks: Sequence[TextTask] = TEXT_TASKS,
        task_weights: Sequence[float] | None = None,
        language_config: LanguageConfig = LanguageConfig(),  # noqa: B008 (frozen)
        transform: ImageTransform | None = None,
    ) -> None:
        super().__init__(num_samples, split, seed, num_frames, size, config, transform)
        weights = [1.0] * len(tasks) if task_weights is None else list(task_weights)
        if len(weights) != len(tasks) or not tasks or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"task_weights: expected a weight >= 0 for each of {tuple(tasks)}, got {task_weights}")
        if unknown := set(tasks) - set(TEXT_TASKS):
            raise ValueError(f"tasks: expected some of {', '.join(TEXT_TASKS)}; got {sorted(unknown)}")
        self.tasks, self.weights = tuple(tasks), [weight / sum(weights) for weight in weights]
        self.language_config = language_config

    def __getitem__(self, key: int | SampleKey) -> CaptionClip:
        """The sample of an index or key.

        Raises:
            RuntimeError: If 50 scenes in a row do not allow the task.
        """
        task = str(sample_rng(self._seed(key), 0, salt=3).choice(self.tasks, p=self.weights))
        config = self.config
        if task == "ocr":
            config = replace(config, sign_probability=0.5, overlay_probability=0.75)
        for attempt in range(_TRIES):
            seed = self._seed(key, salt=10 + attempt)
            clip = render_clip(seed, config)
            target = self._say(task, clip, seed)
            if target is not None:
                return CaptionClip(**self._common(key, seed, clip), target=target)
        raise RuntimeError(f"no scene allows the task {task!r}: raise num_objects, object_size or size in the config")

    def _say(self, task: str, clip: WorldClip, seed: int) -> TextTarget | None:
        rng, frame = sample_rng(seed, 0, salt=4), len(clip.images) // 2
        if task == "caption":
            return language.caption(rng, clip, frame, self.language_config)
        if task == "ocr":
            return language.ocr(clip, frame, self.language_config)
        if task == "grounding":
            return language.grounding(rng, clip, frame, self.language_config)
        return language.region(rng, clip, frame, self.language_config)
