"""Artifact units for genxai: which units break a generator's images, edits that switch them off, and the proof."""
