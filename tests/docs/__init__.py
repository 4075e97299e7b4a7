"""The pages of docs/ and README: their code runs, their commands print what they say, and the site is whole."""
