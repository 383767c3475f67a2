"""PIRL as a look-up: an image and its shuffled pieces look the same remembered vector up."""
