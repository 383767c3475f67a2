"""Barlow Twins and VICReg as look-ups without a dictionary."""
