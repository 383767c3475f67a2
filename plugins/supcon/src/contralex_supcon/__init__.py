"""SupCon as a look-up in which every sample of the class is right."""
