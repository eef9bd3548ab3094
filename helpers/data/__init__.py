"""Speech and noise: where they lie, how they are made, mixed and served to a training."""
