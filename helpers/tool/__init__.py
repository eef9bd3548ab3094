"""What the command line does with files. Only `helpers.__main__` imports it."""
