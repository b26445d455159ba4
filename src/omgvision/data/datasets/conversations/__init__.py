"""Readers of conversations about pictures: one file for a format."""
