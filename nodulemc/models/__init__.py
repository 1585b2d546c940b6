"""The networks: two I3D backbones, the segmentation decoder, the classification head."""
