"""Planted truth: models whose right explanation is known, and the scoreboard, for genxai."""
