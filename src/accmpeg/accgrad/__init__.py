"""Accuracy gradients: which macroblocks the server DNN's accuracy depends on, and label sets of them."""
