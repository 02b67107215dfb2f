"""A procedural world: seeded clips with exact geometry, actions, words and captions, rendered on the CPU.

It is the default data of every task and benchmark, so nothing is downloaded; the photographs on surfaces are those that
ship with scikit-image.
"""

from omnistream.data.world.actions import ACTIONS
from omnistream.data.world.clip import WorldClip, render_action, render_clip, render_scene
from omnistream.data.world.config import WorldConfig
from omnistream.data.world.datasets import WorldActions, WorldCaptions, WorldFrames, WorldScenes
from omnistream.data.world.depth import WorldDepth
from omnistream.data.world.language import LanguageConfig
from omnistream.data.world.objects import OBJECTS, WorldObjects
from omnistream.data.world.reader import WorldVideos
from omnistream.data.world.scene import CLASSES
from omnistream.data.world.segmentation import WorldSegmentation
from omnistream.data.world.tracks import Tracks, track_points
from omnistream.data.world.video_objects import WorldVideoObjects

__all__ = [
    "ACTIONS",
    "CLASSES",
    "OBJECTS",
    "LanguageConfig",
    "Tracks",
    "WorldActions",
    "WorldCaptions",
    "WorldClip",
    "WorldConfig",
    "WorldDepth",
    "WorldFrames",
    "WorldObjects",
    "WorldScenes",
    "WorldSegmentation",
    "WorldVideoObjects",
    "WorldVideos",
    "render_action",
    "render_clip",
    "render_scene",
    "track_points",
]
