"""Camera mathematics shared by data, tasks and metrics: pure, batched functions that keep the dtype of their input.

Conventions: OpenCV axes (x right, y down, z forward); the centre of pixel i is at i + 0.5; sizes are (height, width);
quaternions are (x, y, z, w); depth is z-depth, along the optical axis.
"""

from omnistream.cameras.alignment import Similarity, align_similarity, apply_similarity, apply_similarity_to_poses
from omnistream.cameras.intrinsics import (
    crop_intrinsics,
    fov_from_intrinsics,
    from_opencv_intrinsics,
    intrinsics_from_fov,
    make_intrinsics,
    resize_intrinsics,
    rotate_camera_clockwise,
    to_opencv_intrinsics,
)
from omnistream.cameras.pose_encoding import decode_pose, encode_pose
from omnistream.cameras.ray_solver import cameras_from_rays
from omnistream.cameras.rays import points_from_depth, project, rays_from_cameras, upsample_rays
from omnistream.cameras.rotations import (
    invert_pose,
    make_pose,
    matrix_from_quaternion,
    nearest_rotation,
    quaternion_from_matrix,
    relative_to_first,
    rotation_angle,
)

__all__ = [
    "Similarity",
    "align_similarity",
    "apply_similarity",
    "apply_similarity_to_poses",
    "cameras_from_rays",
    "crop_intrinsics",
    "decode_pose",
    "encode_pose",
    "fov_from_intrinsics",
    "from_opencv_intrinsics",
    "intrinsics_from_fov",
    "invert_pose",
    "make_intrinsics",
    "make_pose",
    "matrix_from_quaternion",
    "nearest_rotation",
    "points_from_depth",
    "project",
    "quaternion_from_matrix",
    "rays_from_cameras",
    "relative_to_first",
    "resize_intrinsics",
    "rotate_camera_clockwise",
    "rotation_angle",
    "to_opencv_intrinsics",
    "upsample_rays",
]
