"""Settings of the self-supervised objective."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SSLHeadConfig:
    """Size of the DINO head and of the iBOT head; defaults are the released configuration's for ViT-L.

    With fewer teacher rows than prototypes a target cannot be sharper than ln(prototypes / rows): small runs need few
    prototypes.
    """

    num_prototypes: int = 65536
    """Outputs K of a head."""
    hidden_dim: int = 2048
    """Width of the MLP's inner layers."""
    bottleneck_dim: int = 256
    """Width of the normalised vector that is compared with the prototypes."""
    num_layers: int = 3
    """Linear layers of the MLP, the last one into the bottleneck included."""

    def __post_init__(self) -> None:
        if min(self.num_prototypes, self.hidden_dim, self.bottleneck_dim, self.num_layers) < 1:
            raise ValueError(f"sizes and layers of the heads must be at least 1, got {self}")


@dataclass(frozen=True)
class SSLLossConfig:
    """Weights and options of the terms; defaults are the paper's and the released configuration's."""

    dino: float = 1.0
    """Weight of both DINO terms together."""
    ibot: float = 1.0
    """Weight of the patch loss."""
    koleo: float = 0.1
    """Weight of the sum over global crops."""
    gram: float = 1.0
    """Weight of Gram anchoring, images only; 0 leaves the gram teacher out."""
    student_temperature: float = 0.1
    """Temperature of the student's logits in DINO and iBOT."""
    sinkhorn_iterations: int = 3
    """Rounds of normalising rows and columns of the teacher's assignment."""
    koleo_neighbours: int = 1
    """Nearest neighbours that each sample is pushed away from."""
    koleo_across_processes: bool = False
    """Search neighbours in the batches of all processes; needed where a process holds one sample."""
    koleo_group_size: int | None = None
    """With `koleo_across_processes`: rows of the global batch among which neighbours are sought; None for all."""
    gram_normalize: bool = True
    """Compare cosines instead of dot products of patches."""
    gram_image_level: bool = True
    """Compare patches within an image; False for all patches of the batch."""
    gram_remove_negative: bool = False
    """Set negative similarities of student and teacher to 0."""
    gram_remove_only_teacher_negative: bool = False
    """Set negative similarities of the teacher alone to 0."""
    chunk_size: int = 1024
    """Masked patches per chunk in the iBOT loss: more is faster and needs more memory; the result is the same."""

    def __post_init__(self) -> None:
        if min(self.dino, self.ibot, self.koleo, self.gram) < 0:
            raise ValueError(f"weights must not be negative, got {self}")
        if self.student_temperature <= 0 or self.chunk_size < 1 or self.sinkhorn_iterations < 1:
            raise ValueError("student_temperature, chunk_size and sinkhorn_iterations must be positive")


@dataclass(frozen=True)
class TeacherConfig:
    """How the teachers follow the student: not in the paper; DINOv3's choice for a warm start of ViT-L."""

    momentum: tuple[float, float] = (0.994, 1.0)
    """First and last momentum of the average, on a cosine over the run; equal values for a constant."""
    temperature: tuple[float, float] = (0.04, 0.07)
    """First and final temperature of the teacher."""
    temperature_warmup_steps: int = 4000
    """Steps of the linear schedule between the two; 0 starts with the final one."""
    gram_update_steps: int | None = None
    """Copy the EMA teacher into the gram teacher every so many steps; None keeps the initial weights."""

    def __post_init__(self) -> None:
        if not all(0 <= m <= 1 for m in self.momentum) or min(self.temperature) <= 0:
            raise ValueError(f"momentum must be in [0, 1] and temperature positive, got {self}")
        if self.temperature_warmup_steps < 0 or (self.gram_update_steps is not None and self.gram_update_steps < 1):
            raise ValueError(f"temperature_warmup_steps must be >= 0 and gram_update_steps >= 1, got {self}")
