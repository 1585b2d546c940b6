"""The networks: two I3D backbones with five taps, the segmentation decoder, the classification head."""
