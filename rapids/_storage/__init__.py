"""The only package that names a Redis command. Bytes in, bytes out; one module per family of keys."""
