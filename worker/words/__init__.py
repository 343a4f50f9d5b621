"""Places of the words of a model's text on the page image."""
