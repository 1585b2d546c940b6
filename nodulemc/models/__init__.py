"""The networks: two I3D backbones, the segmentation decoder, and the heads."""
