"""Groups of commands that are too long for `cli`, which lists them. They import what they need when they are run."""
