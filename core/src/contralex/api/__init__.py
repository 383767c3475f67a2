"""What Python users do with methods and runs. Each command prints what a function of this folder returns."""
