"""The formats of weights: which array is which of ours, and back."""
