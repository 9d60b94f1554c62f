"""Checkpoints: what a weight file holds, and how it is read without harm."""
