"""What a reader sees and hears: figures, players, the listening test."""
