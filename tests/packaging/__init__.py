"""What is given to users: the wheel, the sdist, the versions that they need, and releases."""
