"""What is wrong with a run, and what to try: from its metrics, its spec, its weights and a few of its batches."""
