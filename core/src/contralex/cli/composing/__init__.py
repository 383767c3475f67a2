"""What `contralex new` writes for several parts at once, from the templates of each."""
