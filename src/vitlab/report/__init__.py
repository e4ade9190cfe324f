"""Results and figures as one self-contained page."""
