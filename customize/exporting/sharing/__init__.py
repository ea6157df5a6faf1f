"""What people read beside the weights: model card, README, sidecars; and the upload."""
