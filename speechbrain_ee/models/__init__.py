"""What computes: front-end, layer-wise encoder, exit heads."""
