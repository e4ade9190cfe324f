"""Tar archives as shards: walked, indexed, read by ranges, near or far."""
