"""CRD as a look-up between a student and its teacher."""
