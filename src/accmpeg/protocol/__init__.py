"""What camera and server say to each other."""
