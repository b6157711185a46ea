"""Mask schemas: named ways to choose the part of an image that is repainted."""
