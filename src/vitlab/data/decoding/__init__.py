"""The formats of image files, each opened with its size checked first."""
