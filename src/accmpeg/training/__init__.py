"""Makes the cheap model of a server DNN: accuracy gradients, label sets of them, and the training."""
