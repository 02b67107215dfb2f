"""The statistics of the procedural world."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WorldConfig:
    """What scenes look like; every field is a range or probability that clips are drawn from.

    Lengths are metres, angles degrees. The defaults offer many cues (upright camera, textured floor, objects standing
    on it), so that a small model learns in minutes; raise `difficulty` for camouflage, dim light and small words.
    """

    size: tuple[int, int] = (64, 64)
    """Height and width of a frame in pixels."""
    num_frames: int = 8
    """Frames in a clip."""
    frames_per_pass: int | None = None
    """For long videos: camera and objects go from one end of their paths to the other in about this many frames, and
    then back, and so on, in a smooth swing. None for one pass at constant speed, however many frames there are."""
    difficulty: float = 0.3
    """0 to 1: strength of textures against the named colours, variation of light, smallness and faintness of words."""
    room_probability: float = 0.5
    """Share of scenes inside a room; the others are open, with a sky that has no valid depth."""
    num_objects: tuple[int, int] = (4, 8)
    """Fewest and most objects in a scene, signs not counted."""
    num_buildings: tuple[int, int] = (0, 5)
    """Fewest and most buildings far behind in open scenes."""
    object_size: tuple[float, float] = (0.25, 0.55)
    """Half the width of an object."""
    photo_probability: float = 0.15
    """Share of objects that carry a photograph in its own colours instead of a named colour."""
    moving_probability: float = 0.35
    """Share of objects that move while a video is filmed; unordered views show a static scene."""
    object_motion: float = 1.6
    """Longest path of an object during a clip."""
    object_turn: float = 150.0
    """Largest turn of a moving object about its vertical axis during a clip."""
    unordered_probability: float = 0.2
    """Share of clips that consist of views from scattered positions instead of a camera path."""
    camera_motion: float = 1.4
    """Longest path of the camera during a clip; also the radius within which unordered views are scattered."""
    camera_turn: float = 30.0
    """Largest turn of the camera during a clip."""
    camera_height: tuple[float, float] = (1.1, 1.8)
    """Height of the camera above the floor."""
    camera_pitch: tuple[float, float] = (4.0, 18.0)
    """How far the camera looks down."""
    fov: tuple[float, float] = (55.0, 85.0)
    """Field of view along the longer side of the frame."""
    max_depth: float = 30.0
    """Surfaces farther than this disappear in haze and have no valid depth."""
    sign_probability: float = 0.35
    """Share of scenes with a sign that shows a word."""
    overlay_probability: float = 0.0
    """Share of clips with a word drawn over the frames."""
    supersample: int = 1
    """Colours are averaged over this many rays along each axis of a pixel; depth and masks are those of its centre."""
    shadows: bool = False
    """Objects cast hard shadows; rendering then takes about twice as long."""

    def __post_init__(self) -> None:
        """Reject values that no scene can be drawn from."""
        if min(self.size) < 8 or self.num_frames < 1 or self.supersample < 1:
            raise ValueError(
                "WorldConfig: needs size >= 8 pixels, num_frames >= 1 and supersample >= 1; "
                f"got {self.size}, {self.num_frames}, {self.supersample}"
            )
        if self.frames_per_pass is not None and self.frames_per_pass < 2:
            raise ValueError(f"WorldConfig.frames_per_pass: expected at least 2, got {self.frames_per_pass}")
        for name in ("difficulty", *(n for n in self.__dataclass_fields__ if n.endswith("_probability"))):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"WorldConfig.{name}: expected a number from 0 to 1, got {getattr(self, name)}")
        for name in ("num_objects", "num_buildings", "object_size", "camera_height", "camera_pitch", "fov"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"WorldConfig.{name}: expected (lowest, highest), got {(low, high)}")
        if (
            min(self.num_objects[0], self.num_buildings[0]) < 0
            or self.object_size[0] <= 0
            or not 0 < self.fov[0] <= self.fov[1] < 170
        ):
            raise ValueError(
                "WorldConfig: needs counts >= 0, object_size > 0 and fov within 0 to 170 degrees; "
                f"got {self.num_objects}, {self.num_buildings}, {self.object_size}, {self.fov}"
            )
