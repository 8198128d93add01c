"""How a fused network lays its weights out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FusedLayout:
    """Which weights are kept a second time in the layout of a kernel.

    Attributes:
        inputs: time projections of all blocks as one matrix, conv_in with padded input channels.
        upsample: kernels that upsample and convolve at once.
        geglu: GEGLU weights with values and gates interleaved.
        outputs: the last two projections of every transformer multiplied into one; compiled networks only.
        winograd: wide 3x3 kernels as Winograd matrices; compiled networks only.
    """

    inputs: bool
    upsample: bool
    geglu: bool
    outputs: bool
    winograd: bool
