"""The shape of the lip-sync U-Net as plain numbers, checked on construction.

The defaults describe the published stage-2 network; ``stage1`` differs by ``use_motion_module=False`` and
``stage2_efficient`` by ``motion_module_decoder_only=True``.
"""

from dataclasses import dataclass

from latentsync.errors import ConfigError

_DOWN_TYPES = ("CrossAttnDownBlock3D", "DownBlock3D")
_UP_TYPES = ("UpBlock3D", "CrossAttnUpBlock3D")
# A motion module's own group norm always has this many groups, whatever norm_num_groups says.
MOTION_NORM_GROUPS = 32


@dataclass(frozen=True)
class UNetSpec:
    """Everything that decides the U-Net's parameters. Raises ConfigError when the numbers do not fit each other."""

    in_channels: int = 13
    """Noisy latents 4, mask 1, masked-image latents 4, reference latents 4, in this order."""
    out_channels: int = 4
    """Channels of the noise prediction."""
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Width of each level, finest first."""
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",)
    """Kind of each level on the way down, finest first."""
    up_block_types: tuple[str, ...] = ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3
    """Kind of each level on the way up, coarsest first."""
    layers_per_block: int = 2
    """Layers of an encoder level; decoder levels have one more."""
    cross_attention_dim: int = 384
    """Width of one audio token."""
    attention_head_dim: int = 8
    """NUMBER of attention heads (the published name is misleading); head width = channels / this."""
    norm_num_groups: int = 32
    """Groups of every group norm outside the motion modules."""
    norm_eps: float = 1e-5
    """Epsilon of the group norms in residual blocks and at the output."""
    add_audio_layer: bool = True
    """Whether transformers attend to the audio tokens."""
    use_motion_module: bool = True
    """Whether attention across frames is built in."""
    motion_module_resolutions: tuple[int, ...] = (1, 2, 4, 8)
    """Levels (as downsampling factors 1, 2, 4, ...) that get motion modules."""
    motion_module_mid_block: bool = False
    """Whether the middle block gets a motion module."""
    motion_module_decoder_only: bool = False
    """Leave out the encoder's motion modules."""
    motion_num_attention_heads: int = 8
    """Heads of the attention across frames."""
    motion_num_transformer_block: int = 1
    """Transformer blocks inside one motion module."""
    motion_max_len: int = 24
    """Longest window in frames: length of the motion modules' position table."""
    gradient_checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations (training only)."""

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        _require(levels > 0, "block_out_channels is empty", "give at least one level")
        for name, types, allowed in (
            ("down_block_types", self.down_block_types, _DOWN_TYPES),
            ("up_block_types", self.up_block_types, _UP_TYPES),
        ):
            _require(len(types) == levels, f"{name} has {len(types)} entries", f"expected one per level ({levels})")
            unknown = sorted(set(types) - set(allowed))
            _require(not unknown, f"{name} has unknown kinds {unknown}", f"choose from {allowed}")
        for name in _POSITIVE:
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}", "expected a number above 0")
        self._check_divisibility()

    def _check_divisibility(self) -> None:
        heads, groups = self.attention_head_dim, self.norm_num_groups
        for level, channels in enumerate(self.block_out_channels):
            where = f"block_out_channels[{level}] = {channels}"
            _require(channels % groups == 0, where, f"expected a multiple of norm_num_groups = {groups}")
            attends = self.attends(level) or level == len(self.block_out_channels) - 1
            _require(not attends or channels % heads == 0, where, f"expected a multiple of the {heads} heads")
            if self.motion_at(level, decoder=True):
                divisor = MOTION_NORM_GROUPS
                _require(channels % divisor == 0, where, f"motion modules need a multiple of {divisor}")
                divisor = self.motion_num_attention_heads
                _require(channels % divisor == 0, where, f"expected a multiple of the {divisor} motion heads")

    def attends(self, level: int, *, decoder: bool = False) -> bool:
        """Whether the given level (0 = finest) of the encoder, or of the decoder, has transformers."""
        if decoder:
            return self.up_block_types[-1 - level] == "CrossAttnUpBlock3D"
        return self.down_block_types[level] == "CrossAttnDownBlock3D"

    def motion_at(self, level: int, *, decoder: bool) -> bool:
        """Whether the given level (0 = finest) of the encoder, or of the decoder, has motion modules."""
        if not self.use_motion_module or (self.motion_module_decoder_only and not decoder):
            return False
        return 2**level in self.motion_module_resolutions


_POSITIVE = (
    "in_channels",
    "out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "attention_head_dim",
    "norm_num_groups",
    "norm_eps",
    "motion_num_attention_heads",
    "motion_num_transformer_block",
    "motion_max_len",
)


def _require(condition: bool, found: str, advice: str) -> None:
    if not condition:
        raise ConfigError(f"The U-Net cannot be built: {found}; {advice}.")
