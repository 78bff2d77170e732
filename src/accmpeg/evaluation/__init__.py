"""Fair comparisons: the same clips, encoder build and server DNN for every method."""
