"""TiCo: queries agree with their keys, and turn away from the directions in which earlier queries lie."""
