"""The only package that names Redis commands. It takes and returns bytes, with one module for each family of keys."""
