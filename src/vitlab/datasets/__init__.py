"""Data sets by name: what each is, how it lies on disk or on the hub, and its official splits and labels."""
