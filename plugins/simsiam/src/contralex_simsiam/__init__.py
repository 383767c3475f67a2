"""SimSiam as a look-up without a dictionary."""
