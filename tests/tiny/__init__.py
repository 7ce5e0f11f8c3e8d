"""Tiny random VLMs of the real Hugging Face classes, and an independent reference to check pruning by."""
