"""Memory and time of a stage on some GPUs, on paper: hardware, layouts, and what they take."""
