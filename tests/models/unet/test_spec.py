import pytest

from latentsync.errors import ConfigError
from latentsync.models.unet.spec import UNetSpec


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"block_out_channels": (320, 640)}, "down_block_types"),
        ({"down_block_types": ("DownBlock2D",) * 4}, "DownBlock2D"),
        ({"up_block_types": ("UpBlock3D",) * 3}, "up_block_types"),
        ({"block_out_channels": (320, 640, 1280, 1290)}, "1290"),
        ({"norm_num_groups": 8, "block_out_channels": (40, 64, 64, 64)}, "motion modules"),
        ({"attention_head_dim": 7}, "heads"),
        ({"layers_per_block": 0}, "layers_per_block"),
        ({"motion_max_len": -1}, "motion_max_len"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(changes, named):
    with pytest.raises(ConfigError, match=named):
        UNetSpec(**changes)


def test_heads_need_not_divide_a_level_without_transformers_when_it_is_not_the_coarsest():
    spec = UNetSpec(
        block_out_channels=(36, 64),
        down_block_types=("DownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "UpBlock3D"),
        norm_num_groups=4,
        use_motion_module=False,
    )
    assert spec.attends(1, decoder=True)
    assert not spec.attends(0, decoder=True)


def test_motion_modules_are_placed_by_resolution_and_side():
    spec = UNetSpec(motion_module_resolutions=(1, 4), motion_module_decoder_only=True)
    assert [spec.motion_at(level, decoder=True) for level in range(4)] == [True, False, True, False]
    assert not any(spec.motion_at(level, decoder=False) for level in range(4))
