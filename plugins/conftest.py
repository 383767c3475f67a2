"""The kit's check on two processes forks them here; tests/testing/test_kit.py has it start them as users do."""

from tests.kit_forks import kit_forks

__all__ = ["kit_forks"]
