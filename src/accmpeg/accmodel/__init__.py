"""The cheap network that predicts accuracy gradients on the camera."""
