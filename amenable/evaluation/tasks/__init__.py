"""Published tests of language models and reward models, from local files in the data sets' own columns."""
