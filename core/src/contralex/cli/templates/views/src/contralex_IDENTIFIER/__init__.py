"""Views for contralex: crops with a hole."""
