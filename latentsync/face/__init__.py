"""Face processing: detection, tracking, aligned cropping, mouth masking and compositing back into the frame."""
