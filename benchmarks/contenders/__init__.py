"""What is compared: each contender is run by `python -m benchmarks.contenders` in an environment of its own.

Nothing here imports Rapids' own package by another way than a user's: `rapids` is the one that environment has.
Where the public API changes, use what both ours and `before` have, or ask which one is there.
"""
