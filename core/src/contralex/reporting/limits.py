"""How much a report holds at most, so that its page stays small whatever the run and the data."""

RUNS = 8
IMAGES = 2_000
"""Images of the map, and as many of those among which neighbours are looked for, where the user does not say."""
MOST_IMAGES = 10_000
POINTS = 300
"""Points of one curve."""
SAMPLES, VIEWS = 6, 12
"""Samples whose views are drawn, and views of each."""
QUERIES, NEIGHBOURS = 8, 8
"""Held-out images with their neighbours, and neighbours of each."""
CLASSES = 20
"""Classes of a confusion matrix; of more, the pairs that are confused most often are listed."""
PAIRS = 20
ATTENTION, HEADS = 6, 6
"""Images whose attention is drawn, and heads of each."""
THUMBNAIL = 96
"""Pixels of a picture's longer side."""
SPRITES = ((2_500, 32), (5_000, 24), (MOST_IMAGES, 16))
"""Pixels of a side of the map's thumbnails, for at most so many images."""
NAME = 80
"""Characters of a path or a class that are shown."""
