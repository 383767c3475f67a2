"""MoCo v1, v2 and v3 as a look-up in a momentum encoder's keys."""
