"""The search for near-duplicates: hashes, their look-up, the comparison of pixels, and lists of what to leave out."""
