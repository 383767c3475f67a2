"""The command line. Each command is a thin layer over a function that Python users have as well."""
