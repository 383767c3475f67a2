"""Recipes as typed data: what a spec is, how its layers are read, and which combinations fit."""
