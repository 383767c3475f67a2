from contralex.testing import Conformance


class TestConformance(Conformance):
    distribution = "contralex-slip"
