"""Running networks on a device: placement, packing, compilation, CUDA graphs."""
