"""What finding near-duplicates is made of: hashes, their search, the proof on pixels, and lists without copies."""
